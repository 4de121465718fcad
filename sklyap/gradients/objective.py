"""The loss of a network as a function of the states of its recurrent layer.

The spectrum knows a network up to its recurrent layer; the loss lies behind it. An :class:`Objective` runs
what follows the layer, whatever it is, on given states, and so tells ``δ_τ = ∂L/∂s_τ``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_sequence

from sklyap.cells import RecurrentCell
from sklyap.cells.comparison import same_to_rounding
from sklyap.cells.conversion import module_of, name_in_layer, opened
from sklyap.cells.drive import Drive, check_finite, with_arguments
from sklyap.cells.encoder import LayerInput
from sklyap.cells.observation import isolated
from sklyap.cells.replay import Replay, cast_inputs
from sklyap.cells.snapshot import duplicate
from sklyap.exceptions import DivergedError
from sklyap.gradients.criterion import CLASS_INDEX, Loss, class_indices, matched, targets_as_tensor, training_of
from sklyap.runtime import kept_rng

__all__ = ["Objective"]


class Objective:
    """Loss of a network on sequences and targets, read at the states of its recurrent layer.

    The network is copied; neither it nor torch's random state is touched.

    Parameters
    ----------
    network : torch module, fitted skorch net or fitted sklyap estimator
        With one recurrent layer (see :func:`~sklyap.as_recurrent_cell`) and something that reads it out.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs)
        At the network's input; tokens (n_sequences, n_steps) where it takes them.
    targets : array-like of shape (n_sequences, ...)
        What the network should answer.
    loss : "auto", "cross_entropy", "mse", or callable ``(outputs, targets) -> loss``
        "auto" is what the network was trained with; for a plain module, which has no criterion, it is the
        cross-entropy of integer targets and the mean squared error of real ones. A callable gets what the
        network's `forward` returns; of several values the mean counts.
    layer : str, optional
        The name of the recurrent submodule where there are several.
    forward_kwargs : mapping, optional
        Further arguments of the network's `forward`.
    dtype, device : torch dtype and device
        Precision, and where it runs.

    Attributes
    ----------
    cell : RecurrentCell
        The recurrent layer.
    given : Tensor of shape (n_sequences, n_steps, ...)
        The sequences as the network takes them, tokens or numbers.
    x : Tensor of shape (n_sequences, n_steps, n_inputs)
        What drives the recurrent layer.
    start : Tensor of shape (n_sequences, state_size)
        Where it starts from.
    targets : Tensor
        What the network should answer.
    lengths : list of int
        How many steps of each sequence count, where the network packs them.

    Raises
    ------
    ValueError, TypeError
        If the network has no readout, `sequences` and `targets` do not match each other or the network, or
        the loss cannot be evaluated or differentiated.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> from sklyap.gradients import Objective
    >>> objective = Objective(network, X[:10], y[:10])
    >>> objective.n_sequences, objective.n_steps
    (10, 8)
    """

    def __init__(
        self,
        network: Any,
        sequences: Any,
        targets: Any,
        *,
        loss: str | Loss = "auto",
        layer: str | None = None,
        forward_kwargs: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not callable(loss) and loss not in ("auto", "cross_entropy", "mse"):
            raise ValueError(
                "The 'loss' parameter must be 'auto', 'cross_entropy', 'mse' or a callable (outputs, targets) -> loss. "
                f"Got {loss!r} instead."
            )
        if targets is None:
            raise ValueError("The 'targets' parameter must hold a target for each sequence. Got None.")
        self._dtype, self._device = dtype, torch.device(device)
        self.cell, self._inside = _opened(network, layer, dtype, self._device, forward_kwargs)
        self._module, self._layer = self._inside.module, self._inside.layer
        if self._module is self._layer and not callable(loss):
            raise ValueError(
                "The 'network' parameter must have a readout: a loss is computed from what follows the recurrent "
                f"layer. Got a bare {type(self._layer).__name__}; wrap it in a module with an output layer, or pass a "
                "callable `loss` of what its forward returns."
            )
        self._read_sequences(sequences)
        self._forward, self._loss, criterion, self._strict = training_of(network, self._module, loss, targets)
        self._summed = getattr(criterion, "reduction", None) == "sum"
        self.targets = self._read_targets(network, targets, criterion)
        self._check_repeatable()
        self.every_step = self._reads_every_step()

    @property
    def n_sequences(self) -> int:
        return self.x.shape[0]

    @property
    def n_steps(self) -> int:
        return self.x.shape[1]

    @cached_property
    def trajectory(self) -> Tensor:
        """The states ``s_0 … s_T`` (n_sequences, n_steps + 1, state_size) that the recurrent layer runs through."""
        with torch.no_grad():
            return self.cell.trajectory(self.start, self.x).transpose(0, 1)

    @property
    def states(self) -> Tensor:
        """The states ``s_1 … s_T``, which are read out."""
        return self.trajectory[:, 1:]

    # The network

    def outputs(self, states: Tensor) -> Any:
        """Return what the network makes of given states, with what precedes its recurrent layer left out.

        Parameters
        ----------
        states : Tensor of shape (n_sequences, t, state_size)
            ``s_1 … s_t``; with t below `n_steps`, the sequences end there.

        Returns
        -------
        Whatever the network's `forward` returns, sequences first
        """
        replay = Replay(self._layer, states)
        self._layer.forward = replay  # type: ignore[method-assign]
        try:
            outputs = self._run(self.given[: len(states), : states.shape[1]])
        finally:
            del self._layer.forward
        replay.check_finished()
        return outputs

    def respond(self, sequences: Tensor, rows: Tensor | None = None) -> Any:
        """Return the outputs of the whole network on other sequences, laid out as the attribute `given`.

        Row i stands in for sequence number ``rows[i]``; by default there is one for each.
        """
        return self._run(sequences, rows)

    def check_one_length(self) -> None:
        """Raise ValueError if sequences have several lengths, which a network has packed them to."""
        if len(set(self.lengths)) > 1:
            raise ValueError(
                f"The 'sequences' parameter must hold sequences of one length here. Got lengths {self.lengths!r:.80}."
            )

    def _arguments(self, rows: Tensor | None) -> dict[str, Any]:
        """Return the further arguments of `forward` for some of the sequences."""
        if rows is None:
            return dict(self._inside.arguments)

        def of_rows(value: Any) -> Any:
            if isinstance(value, Tensor):
                axes = [axis for axis in (1, 0) if value.ndim > axis and value.shape[axis] == self.n_sequences]
                return value.index_select(axes[0], rows.to(value.device)) if axes else value
            if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
                return type(value)(map(of_rows, value))
            if isinstance(value, list | tuple) and len(value) == self.n_sequences:
                return [value[i] for i in rows.tolist()]
            return value

        return {name: of_rows(value) for name, value in self._inside.arguments.items()}

    def _run(self, given: Tensor, rows: Tensor | None = None) -> Any:
        if self._time_first:
            given = given.transpose(0, 1)
        try:
            with kept_rng(self._device):
                outputs = self._forward(given, **self._arguments(rows))
        except (ValueError, TypeError):
            raise
        except Exception as error:
            raise ValueError(
                f"The 'network' parameter, a {type(self._module).__name__}, could not be run on sequences of shape "
                f"{tuple(given.shape)}: {error}"
            ) from error
        if self._time_first and isinstance(outputs, Tensor) and outputs.ndim > 2:
            outputs = outputs.transpose(0, 1)
        return outputs

    # The loss

    def loss(self, outputs: Any, rows: Sequence[int] | None = None) -> Tensor:
        """Return the mean loss of `outputs` over sequences, those of the targets in `rows` (all by default)."""
        targets = self.targets if rows is None else self.targets[rows]
        if self.every_step and isinstance(outputs, Tensor):
            targets = targets[:, : outputs.shape[1]]
        if self._strict:
            targets = matched(outputs, targets)
        try:
            value = self._loss(outputs, targets)
        except Exception as error:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"The loss could not be computed from outputs of shape {shape} and the 'targets' parameter of shape "
                f"{tuple(targets.shape)} and dtype {targets.dtype}: {error}"
            ) from error
        if not isinstance(value, Tensor):
            raise TypeError(
                "The 'loss' parameter must return a differentiable tensor (torch operations throughout). "
                f"Got {type(value).__name__} instead."
            )
        return value.sum() / len(targets) if self._summed else value.mean()

    def losses(self, outputs: Any, rows: Sequence[int]) -> Tensor:
        """Return the loss of each sequence of `outputs` by itself; row i has the target number ``rows[i]``."""
        with torch.no_grad():
            return torch.stack([self.loss(outputs[i : i + 1], [row]) for i, row in enumerate(rows)])

    def delta(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of states and its derivative with respect to them.

        Parameters
        ----------
        states : Tensor of shape (n_sequences, t, state_size)
            ``s_1 … s_t``.

        Returns
        -------
        loss : Tensor of shape ()
        delta : Tensor of shape (n_sequences, t, state_size)
            ``δ_τ = ∂L/∂s_τ``, each with the other states held fixed.

        Raises
        ------
        ValueError
            If the loss is not differentiable.
        DivergedError
            If it is not finite.
        """
        leaf = states.detach().clone().requires_grad_()
        with torch.enable_grad():
            outputs = self.outputs(leaf)
            if isinstance(outputs, Tensor) and not outputs.requires_grad:
                raise ValueError(
                    "The 'network' parameter must have outputs that depend differentiably on its recurrent layer. "
                    f"Those of {type(self._module).__name__} do not."
                )
            value = self.loss(outputs)
            if not value.requires_grad:
                raise ValueError(
                    "The 'loss' parameter must be differentiable in the network's outputs. Got a loss without a "
                    "gradient (a count, an argmax, or detached values)."
                )
            (delta,) = torch.autograd.grad(value, leaf, allow_unused=True)
        if delta is None:
            raise ValueError(
                "The 'network' parameter must have outputs that depend differentiably on its recurrent layer. Those of "
                f"{type(self._module).__name__} do not: its forward cuts the gradient (no_grad, detach)."
            )
        if not bool(torch.isfinite(value)) or not bool(torch.isfinite(delta).all()):
            raise DivergedError(f"The loss or its derivative is not finite (the loss is {value.item()}).")
        return value.detach(), delta

    def check_used_once(self, names: Sequence[str]) -> None:
        """Raise ValueError if parameters of the recurrent layer, named as in `cell`, are those of another part too."""
        known = dict(self._layer.named_parameters())
        wanted = {id(known[own]): own for own in (name_in_layer(self._layer, n) for n in names) if own in known}
        inside = next(n for n, part in self._module.named_modules() if part is self._layer)
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            if id(parameter) in wanted and inside and not name.startswith(f"{inside}."):
                raise ValueError(
                    f"The 'network' parameter is a {type(self._module).__name__} whose {wanted[id(parameter)]} of "
                    f"{inside!r} is {name!r} too, so that its gradient is not that of the layer {inside!r} alone. Ask "
                    "for other `parameters`, or untie the weights in a copy."
                )

    def gradient_by_autograd(self, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its gradient by automatic differentiation through the network's own layer.

        Parameters
        ----------
        names : sequence of str
            Parameters of `cell`.
        """
        try:
            parameters = [self._layer.get_parameter(name_in_layer(self._layer, name)) for name in names]
            run: Callable[[], Any] = partial(self._run, self.given)
        except AttributeError:
            # Weights that the layer computes from others (weight_norm, say) are parameters of the cell only.
            parameters = [self.cell.get_parameter(name) for name in names]

            def run() -> Any:
                return self.outputs(self.cell.trajectory(self.start, self.x)[1:].transpose(0, 1))

        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            # cuDNN has no backward pass in evaluation mode.
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                value = self.loss(run())
                found = torch.autograd.grad(value, parameters, allow_unused=True)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
        grads = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        return value.detach(), dict(zip(names, grads, strict=True))

    # What comes in

    def _read_sequences(self, sequences: Any) -> None:
        drive = Drive.of(self.cell, sequences).to(self._dtype, self._device)
        assert drive.inputs is not None
        if len(set(drive.lengths)) > 1 and isinstance(sequences, list | tuple | PackedSequence):
            raise ValueError("The 'sequences' parameter must hold sequences of one length. Got a list of several.")
        self.lengths = drive.lengths
        self.x = pad_sequence(drive.inputs, batch_first=True)
        self.start = self.cell.initial_state(drive.n_sequences) if drive.starts is None else drive.starts
        seen = self._inside.observe(check_finite(sequences), checked=False)
        self.given, self._time_first = seen.given, seen.time_first

    def _read_targets(self, network: Any, targets: Any, criterion: Any) -> Tensor:
        classes = getattr(network, "classes_", None) if hasattr(network, "net_") else None
        tensor = targets_as_tensor(targets) if classes is None else class_indices(targets, classes)
        if tensor.ndim == 0 or len(tensor) != self.n_sequences:
            got = "a scalar" if tensor.ndim == 0 else f"shape {tuple(tensor.shape)}"
            raise ValueError(
                f"The 'targets' parameter must hold one target for each of the {self.n_sequences} sequences. "
                f"Got {got} instead."
            )
        if tensor.is_floating_point():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError("The 'targets' parameter must be finite. Got NaN or infinity.")
            return tensor.to(self._device, self._dtype)
        is_number = isinstance(criterion, nn.modules.loss._Loss) and not isinstance(criterion, CLASS_INDEX)
        return tensor.to(self._device, self._dtype if is_number else torch.int64)

    def _check_repeatable(self) -> None:
        """Refuse a network whose outputs are drawn: a loss that differs from run to run has no gradient."""
        outputs = []
        for seed in range(2):
            with isolated(self._module, seed), torch.no_grad():
                outputs.append(self._run(self.given))
        first, second = outputs
        if isinstance(first, Tensor) and isinstance(second, Tensor) and not same_to_rounding(first, second):
            raise ValueError(
                f"The 'network' parameter is a {type(self._module).__name__} whose outputs are drawn in evaluation "
                "mode (dropout that stays on, noise), or that keeps a state between calls: two runs on the same "
                "sequences differ. Switch the noise off in evaluation mode, and start from a state that is given."
            )

    def _reads_every_step(self) -> bool:
        """Tell whether there is a target for each step: outputs get shorter with the sequences."""
        self.every_step = False
        if self.targets.ndim < 2 or self.targets.shape[1] != self.n_steps or self.n_steps < 2:
            return False
        states = self.start.unsqueeze(1).expand(-1, self.n_steps - 1, -1)
        with torch.no_grad():
            try:
                shorter = self.outputs(states)
            except (ValueError, TypeError):  # a network that reads a fixed number of steps
                return False
        return isinstance(shorter, Tensor) and shorter.ndim > 1 and shorter.shape[1] == self.n_steps - 1


def _opened(
    network: Any,
    layer: str | None,
    dtype: torch.dtype,
    device: torch.device,
    forward_kwargs: Mapping[str, Any] | None = None,
) -> tuple[RecurrentCell, LayerInput]:
    """Return the cell of a network and a copy of the network around its recurrent layer."""
    cell = opened(network, layer=layer)
    if cell.n_inputs is None:
        raise ValueError("The 'network' parameter must take inputs; an autonomous system has no loss on sequences.")
    bare = module_of(network)
    inside = cell.encoder if isinstance(cell.encoder, LayerInput) else LayerInput(bare, bare)
    # Not deepcopy, which would share the functions that take the place of a forward.
    twin, inner = duplicate((inside.module, inside.layer), inside.module)
    inside = replace(inside, module=twin, layer=inner)
    if getattr(inside.layer, "bidirectional", False):
        raise ValueError(
            f"The 'layer' parameter names the forward half of a bidirectional {type(inside.layer).__name__}. A loss "
            "reads both halves, so that its gradient is not that of the forward half alone. Use a unidirectional layer."
        )
    inside.module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    if forward_kwargs:
        if bare is inside.layer or inside.module is inside.layer:
            raise ValueError(
                "The 'forward_kwargs' parameter is for a network with a forward of its own. Got a bare recurrent layer."
            )
        inside = with_arguments(inside, forward_kwargs)
    # The encoder before the layer may make another dtype (one-hot rows, zeros), so inputs are cast to the layer's.
    inside.layer.register_forward_pre_hook(partial(cast_inputs, dtype), with_kwargs=True)
    cell.encoder = None
    cell = cell.to(device=device, dtype=dtype)
    cell.encoder = inside
    return cell, inside
