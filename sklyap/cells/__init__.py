"""One-step maps ``s' = f(s, x)`` of recurrent networks and their Jacobian action, one file per architecture."""

from sklyap.cells.antisymmetric import AntisymmetricCell
from sklyap.cells.base import DenseLinearization, Linearization, RecurrentCell
from sklyap.cells.closed_loop import ClosedLoopCell, closed_loop
from sklyap.cells.conversion import as_recurrent_cell
from sklyap.cells.cornn import CoRNNCell
from sklyap.cells.elman import ElmanCell
from sklyap.cells.flow import FlowCell
from sklyap.cells.function import FunctionCell
from sklyap.cells.gated import Coefficients, GatedCell
from sklyap.cells.gru import GRUCell
from sklyap.cells.layernorm_lstm import LayerNormLSTMCell
from sklyap.cells.leaky import LeakyCell
from sklyap.cells.lem import LEMCell
from sklyap.cells.lipschitz import LipschitzCell
from sklyap.cells.lru import LRUCell
from sklyap.cells.lstm import LSTMCell
from sklyap.cells.ltc import LTCCell
from sklyap.cells.mgu import MGUCell
from sklyap.cells.mingru import MinGRUCell
from sklyap.cells.module import ModuleCell
from sklyap.cells.orthogonal import OrthogonalCell
from sklyap.cells.plrnn import PLRNNCell
from sklyap.cells.projected_lstm import ProjectedLSTMCell
from sklyap.cells.rate import RateCell
from sklyap.cells.stacked import StackedCell

__all__ = [
    "CELLS",
    "AntisymmetricCell",
    "ClosedLoopCell",
    "CoRNNCell",
    "Coefficients",
    "DenseLinearization",
    "ElmanCell",
    "FlowCell",
    "FunctionCell",
    "GRUCell",
    "GatedCell",
    "LEMCell",
    "LRUCell",
    "LSTMCell",
    "LTCCell",
    "LayerNormLSTMCell",
    "LeakyCell",
    "Linearization",
    "LipschitzCell",
    "MGUCell",
    "MinGRUCell",
    "ModuleCell",
    "OrthogonalCell",
    "PLRNNCell",
    "ProjectedLSTMCell",
    "RateCell",
    "RecurrentCell",
    "StackedCell",
    "as_recurrent_cell",
    "closed_loop",
]

CELLS: dict[str, type[RecurrentCell]] = {
    "rnn": ElmanCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "antisymmetric": AntisymmetricCell,
    "cornn": CoRNNCell,
    "lipschitz": LipschitzCell,
    "lem": LEMCell,
    "orthogonal": OrthogonalCell,
    "leaky": LeakyCell,
    "rate": RateCell,
    "plrnn": PLRNNCell,
    "layernorm_lstm": LayerNormLSTMCell,
    "mgu": MGUCell,
    "mingru": MinGRUCell,
    "lru": LRUCell,
    "ltc": LTCCell,
}
"""Architectures by the name that ``cell=`` of the estimators takes."""
