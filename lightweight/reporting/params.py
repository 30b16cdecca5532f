"""The parameters of the stage `report`, apart from the tables, so that the stages that read them import no pandas."""

from lightweight.core.params import Params
from lightweight.core.variants import VariantName


class ReportParams(Params):
    model: VariantName
