"""A sensitivity probe prunes parts of a network without training it, measures its accuracy, and restores it."""

import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lightweight.batchnorm import reestimate_batchnorm
from lightweight.checkpointing.session import Session
from lightweight.checkpointing.trial_log import TrialLog
from lightweight.core.module_state import load_state
from lightweight.data.dataset import random_indices
from lightweight.networks.validation import validate
from lightweight.pruning.amounts import Amounts, counts_to_prune
from lightweight.pruning.groups import PruningGroups
from lightweight.pruning.importance import Importance

COLUMNS = ["probe", "layer", "amount", "val_accuracy"]
BATCH_SIZE = 256  # for BatchNorm re-estimation


class SensitivityProbe:
    """Measure the accuracy of a network with shares of its pruning groups set to zero, and restore the network.

    The accuracy is that on `num_images` random validation images, after BatchNorm re-estimation on as many training
    images. A resumed session does not repeat the probes that its checkpoint holds. `total` is the number of probes, for
    the progress bar and the lines of the log, of which every probe writes one.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: PruningGroups,
        session: Session,
        importance: Importance,
        num_images: int,
        total: int,
    ) -> None:
        self.model, self.groups, self.session, self.num_images = model, groups, session, num_images
        self.total = total
        data = session.dataset
        order = random_indices(len(data.val), num_images, session.seed)
        self.val = data.val.take(order.sort().values.to(data.mean.device))
        self.progress = tqdm(total=total, desc="probes", leave=False, disable=None)  # None: off unless on a terminal
        self.log = TrialLog("probe", session.checkpointer)
        importance.prepare(model)
        self.scores = groups.scores(importance)
        model.zero_grad()
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.accuracy = self.measure("", 0.0)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the probes so far, a row of `COLUMNS` for each."""
        return self.log.rows

    def measure(self, name: str, amounts: Amounts) -> float:
        """Return the accuracy in [0, 1] with these shares of the groups pruned.

        `name` goes into column `layer`: the group whose amount is recorded, or "" for one amount of all groups.
        """
        self.progress.update()

        def trial() -> dict[str, Any]:
            started = time.perf_counter()
            counts = counts_to_prune(self.groups, amounts, "layer", self.scores)
            self.groups.mask_least_important(counts, self.scores)
            data, seed = self.session.dataset, self.session.seed
            torch.manual_seed(seed)  # for dropout during the re-estimation: equal numbers in every probe
            reestimate_batchnorm(self.model, data, self.num_images, BATCH_SIZE, seed, self.session.augmentation)
            _, accuracy = validate(self.model, data, self.val)
            self.groups.clear_masks()
            load_state(self.model, self.state)
            row = {
                "layer": name,
                "amount": amounts[name] if isinstance(amounts, dict) else amounts,
                "val_accuracy": accuracy,
            }
            self.progress.clear()
            self.session.log(self._format_row(row, time.perf_counter() - started))
            return row

        return self.log.run(trial)["val_accuracy"]

    def _format_row(self, row: dict[str, Any], seconds: float) -> str:
        """Format a row as a line of the log, with the time that the probes after it will take if they are like it."""
        number, total = self.log.number, self.total
        left = f"  {tqdm.format_interval((total - number) * seconds)} left" if number < total else ""
        pruned = f"{row['amount']:.1%} of {row['layer'] or 'all layers'}"
        return (
            f"probe {number:>{len(str(total))}}/{total}  val accuracy {row['val_accuracy']:.2%}  without {pruned}{left}"
        )

    def measure_group(self, group: str, amount: float) -> float:
        """Return the accuracy in [0, 1] with a share of one group pruned and the others whole."""
        return self.measure(group, dict.fromkeys(self.groups.sizes, 0.0) | {group: amount})
