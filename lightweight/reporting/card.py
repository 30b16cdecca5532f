"""The model card that a Hugging Face repository shows: written from the same metrics as every other table.

https://huggingface.co/docs/hub/model-cards says what the header means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lightweight.reporting.results import Latency, Scores
from lightweight.reporting.summary import explain, headline
from lightweight.reporting.table import comparison, markdown
from lightweight.reporting.verdict import verdict

UNKNOWN = "unknown"
USAGE = """\
```python
import numpy as np, onnxruntime
from PIL import Image

image = Image.open("image.png").convert("{mode}").resize(({side}, {side}))
pixels = np.asarray(image, np.float32).reshape({side}, {side}, {channels}).transpose(2, 0, 1)[None]
logits = onnxruntime.InferenceSession("{file}").run(None, {{"input": pixels}})[0]  # raw pixels in, from 0 to 255
```
"""


@dataclass(frozen=True)
class ModelCard:
    """Hold what the card says: scores, latency, flat parameters of params.yaml, class names, and hashes by file.

    `license` is that of the model; None is written as unknown.
    """

    scores: Scores
    latency: Latency
    params: Mapping[str, Any]
    classes: tuple[str, ...]
    sha256: Mapping[str, str]
    license: str | None

    def header(self) -> dict[str, Any]:
        """Make the metadata of the card: what the Hub searches and links by."""
        network, dataset = str(self.params["train.network"]), str(self.params["prepare.dataset"])
        own = self.scores["optimized"]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": dataset, "name": dataset, "split": "test"},
            "metrics": [{"type": "accuracy", "name": "top-1 accuracy", "value": round(own["accuracy"], 4)}],
        }
        return {
            "license": (self.license or UNKNOWN).lower(),
            "library_name": "onnx",
            "pipeline_tag": "image-classification",
            "base_model": network if network.startswith("timm/") else f"{network.replace(':', '-')}-{dataset}",
            "base_model_relation": "quantized",
            "datasets": [dataset],
            "metrics": ["accuracy"],
            "tags": ["onnx", "onnxruntime", "pruned", str(self.params["quantize.method"])],
            "model-index": [{"name": f"{network} on {dataset}, compressed", "results": [result]}],
        }

    def render(self) -> str:
        """Write the card in Markdown behind its header."""
        network, dataset = self.params["train.network"], self.params["prepare.dataset"]
        side, channels = self.params["prepare.image_size"], self.params["prepare.channels"]
        usage = USAGE.format(mode="RGB" if channels == 3 else "L", side=side, channels=channels, file="optimized.onnx")
        names = ", ".join(self.classes[:20]) + (f" and {len(self.classes) - 20} more" if len(self.classes) > 20 else "")
        hashes = "".join(f"| `{name}` | `{value}` |\n" for name, value in self.sha256.items())
        return "\n".join([
            f"---\n{yaml.safe_dump(self.header(), sort_keys=False, allow_unicode=True)}---",
            f"# {network} on {dataset}: {verdict(self.scores, self.latency)}\n",
            f"Classes: {names}.\n",
            usage,
            f"## How it compares\n\n{markdown(comparison(self.scores, self.latency))}",
            "\n\n".join([*headline(self.scores, self.latency), *explain(self.scores, self.latency)]),
            "\n## Limits\n\nAccuracy was measured on the test split of this data set alone, on the file that ships. "
            "Images of another kind may be classified with confidence and wrongly.",
            f"\n## Hashes (SHA-256)\n\n| file | |\n| - | - |\n{hashes}",
        ])  # fmt: skip
