"""The log of the trials of a search, from which a resumed search reads finished trials instead of repeating them."""

from collections.abc import Callable
from typing import Any

from lightweight.checkpointing.checkpointer import Checkpointer


class TrialLog:
    """Record a row per trial of a deterministic search in the checkpoints of its stage.

    `name`, such as "probe", is the column of the numbers of the trials.
    """

    def __init__(self, name: str, checkpointer: Checkpointer) -> None:
        self.name, self.checkpointer = name, checkpointer
        self.rows: list[dict[str, Any]] = []
        self.number = 0
        checkpointer.track(f"{name}s", self)

    def run(self, trial: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run the next trial and record its row, or return the recorded row if a resumed run has it."""
        self.number += 1
        if self.number > len(self.rows):
            self.rows.append({self.name: self.number, **trial()})
            self.checkpointer.save_if_due(f"{self.name} {self.number + 1}")
        return self.rows[self.number - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
