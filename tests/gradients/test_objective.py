"""The loss side of a network: any module around a recurrent layer, against plain torch."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklyap import RNNClassifier, RNNRegressor, as_recurrent_cell
from sklyap.exceptions import DivergedError
from sklyap.gradients import loss_gradient
from sklyap.gradients.objective import Objective

N_SEQUENCES, N_STEPS, N_INPUTS, HIDDEN, N_CLASSES = 6, 9, 3, 5, 4


class Net(nn.Module):
    """A recurrent layer inside a module, used in one of many ways."""

    def __init__(self, kind, use="last", *, batch_first=True, layers=1, n_outputs=N_CLASSES, encoder=None, **options):
        super().__init__()
        width = N_INPUTS if encoder is None else HIDDEN
        self.encoder = nn.Identity() if encoder is None else encoder
        self.rnn = kind(width, HIDDEN, layers, batch_first=batch_first, **options)
        self.readout = nn.Linear(HIDDEN, n_outputs)
        self.dropout = nn.Dropout(0.5)
        self.use = use

    def forward(self, x):
        x = self.encoder(x)
        if self.use == "packed":
            lengths = [x.shape[1]] * len(x)
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        if self.use == "transposed":
            x = x.transpose(0, 1)
        start = self.readout.weight.new_full((self.rnn.num_layers, len(x), HIDDEN), 0.3)
        output, last = self.rnn(x, start if self.use == "started" else None)
        if self.use == "packed":
            output = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0]
        read = {
            "last": lambda: output[:, -1] if self.rnn.batch_first else output[-1],
            "packed": lambda: output[:, -1],
            "started": lambda: output[:, -1],
            "transposed": lambda: output[-1],
            "mean": lambda: output.mean(1),
            "all": lambda: output,
            "h_n": lambda: last[0],
            "h_n and c_n": lambda: last[0][-1] + last[1][0],
        }[self.use]
        return self.readout(self.dropout(read()))


class Loop(nn.Module):
    """A cell, or a layer over three steps at a time, in the module's own loop."""

    def __init__(self, kind, width):
        super().__init__()
        self.cell = kind(N_INPUTS, HIDDEN, **({"batch_first": True} if width > 1 else {}))
        self.readout = nn.Linear(HIDDEN, N_CLASSES)
        self.width = width

    def forward(self, x):
        state, read = None, []
        for t in range(0, x.shape[1], self.width):
            if self.width > 1:
                output, state = self.cell(x[:, t : t + self.width], state)
            else:
                state = self.cell(x[:, t], state)
                output = (state[0] if isinstance(state, tuple) else state).unsqueeze(1)
            read.append(self.readout(output))
        return torch.cat(read, 1)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    return {
        "values": torch.randn(N_SEQUENCES, N_STEPS, N_INPUTS, generator=generator),
        "tokens": torch.randint(0, 7, (N_SEQUENCES, N_STEPS), generator=generator),
        "class": torch.randint(0, N_CLASSES, (N_SEQUENCES,), generator=generator),
        "classes": torch.randint(0, N_CLASSES, (N_SEQUENCES, N_STEPS), generator=generator),
        "number": torch.randn(N_SEQUENCES, generator=generator),
        "numbers": torch.randn(N_SEQUENCES, N_STEPS, 2, generator=generator),
    }


def in_torch(module, x, y, loss, *, time_first=False):
    """Return loss and recurrent gradients as a torch user gets them, in float64."""
    module = copy.deepcopy(module).double().eval()
    x = x.double() if x.is_floating_point() else x
    y = y.double() if y.is_floating_point() else y
    outputs = module(x.transpose(0, 1) if time_first else x)
    value = loss(outputs.transpose(0, 1) if time_first and outputs.ndim == 3 else outputs, y)
    value.backward()
    layer = module.rnn if hasattr(module, "rnn") else module.cell
    return value.item(), {name: p.grad for name, p in layer.named_parameters() if name.startswith("weight_hh")}


def rows_cross_entropy(outputs, y):
    return nn.functional.cross_entropy(outputs.flatten(0, -2), y.flatten())


def rows_mse(outputs, y):
    return nn.functional.mse_loss(outputs.reshape(y.shape), y)


CASES = {
    "h_n of two layers": (lambda: Net(nn.GRU, "h_n", layers=1), "values", "class", rows_cross_entropy),
    "h_n and c_n": (lambda: Net(nn.LSTM, "h_n and c_n", layers=2), "values", "class", rows_cross_entropy),
    "every step": (lambda: Net(nn.RNN, "all", layers=2), "values", "classes", rows_cross_entropy),
    "time first": (lambda: Net(nn.RNN, batch_first=False), "values", "class", rows_cross_entropy),
    "time first, every step": (lambda: Net(nn.GRU, "all", batch_first=False), "values", "classes", rows_cross_entropy),
    "transposes itself": (
        lambda: Net(nn.GRU, "transposed", batch_first=False), "values", "class", rows_cross_entropy,
    ),
    "one number": (lambda: Net(nn.GRU, n_outputs=1), "values", "number", rows_mse),
    "numbers at every step": (lambda: Net(nn.LSTM, "all", n_outputs=2), "values", "numbers", rows_mse),
    "packed": (lambda: Net(nn.LSTM, "packed"), "values", "class", rows_cross_entropy),
    "mean over steps": (lambda: Net(nn.LSTM, "mean"), "values", "class", rows_cross_entropy),
    "own initial state": (lambda: Net(nn.RNN, "started", nonlinearity="relu"), "values", "class", rows_cross_entropy),
    "embedding": (lambda: Net(nn.GRU, encoder=nn.Embedding(7, HIDDEN)), "tokens", "class", rows_cross_entropy),
    "linear encoder": (lambda: Net(nn.GRU, encoder=nn.Linear(N_INPUTS, HIDDEN)), "values", "class", rows_cross_entropy),
    "no bias": (lambda: Net(nn.GRU, bias=False), "values", "class", rows_cross_entropy),
    "loop over nn.LSTMCell": (lambda: Loop(nn.LSTMCell, 1), "values", "classes", rows_cross_entropy),
    "loop over nn.GRU": (lambda: Loop(nn.GRU, 3), "values", "classes", rows_cross_entropy),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_any_module_has_torchs_loss_and_gradient(case, data):
    build, inputs, targets, loss = CASES[case]
    torch.manual_seed(1)
    module = build()
    expected, gradients = in_torch(module, data[inputs], data[targets], loss, time_first=case.startswith("time first"))
    found = loss_gradient(module, data[inputs], data[targets])
    assert found.loss == pytest.approx(expected, rel=1e-12)
    assert len(found.parameters) == len(gradients)
    for ours, theirs in zip(found.parameters.values(), gradients.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * float(theirs.abs().max()))


def test_delta_is_the_derivative_with_the_other_states_held_fixed(data):
    torch.manual_seed(0)
    objective = Objective(Net(nn.LSTM, "all"), data["values"], data["classes"])
    value, delta = objective.delta(objective.states)
    assert delta.shape == (N_SEQUENCES, N_STEPS, 2 * HIDDEN)
    assert not delta[..., HIDDEN:].any()  # the readout does not see c
    change = torch.randn(objective.states.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = objective.loss(objective.outputs(objective.states + 1e-6 * change))
    back = objective.loss(objective.outputs(objective.states - 1e-6 * change))
    assert float((moved - back) / 2e-6) == pytest.approx(float((delta * change).sum()), rel=1e-8)
    assert float(value) == pytest.approx(float((moved + back) / 2), rel=1e-9)


@pytest.mark.parametrize("use,targets,every_step", [("last", "class", False), ("all", "classes", True)])
def test_sequences_may_end_early(use, targets, every_step, data):
    torch.manual_seed(0)
    module = Net(nn.GRU, use)
    objective = Objective(module, data["values"], data[targets])
    assert objective.every_step == every_step
    y = data[targets][:, :4] if every_step else data[targets]
    expected, _ = in_torch(module, data["values"][:, :4], y, rows_cross_entropy)
    value, delta = objective.delta(objective.states[:, :4])
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert delta.shape[1] == 4


def test_outputs_as_wide_as_sequences_are_long_are_not_taken_for_steps(data):
    targets = torch.randn(N_SEQUENCES, N_STEPS)
    assert not Objective(Net(nn.GRU, n_outputs=N_STEPS), data["values"], targets).every_step


def test_losses_of_single_sequences_average_to_the_loss(data):
    objective = Objective(Net(nn.GRU, "all"), data["values"], data["classes"])
    outputs = objective.respond(objective.given)
    losses = objective.losses(outputs, range(N_SEQUENCES))
    assert float(losses.mean()) == pytest.approx(float(objective.loss(outputs)), rel=1e-12)


@pytest.mark.parametrize(
    "criterion,scale",
    [
        (nn.CrossEntropyLoss(reduction="sum"), N_SEQUENCES),
        (nn.CrossEntropyLoss(reduction="none"), 1),
        (lambda outputs, y: nn.functional.cross_entropy(outputs, y, reduction="none"), 1),
    ],
)
def test_any_reduction_is_the_mean_over_sequences(criterion, scale, data):
    torch.manual_seed(0)
    module = Net(nn.GRU)
    mean = loss_gradient(module, data["values"], data["class"])
    other = loss_gradient(module, data["values"], data["class"], loss=criterion)
    assert other.loss == pytest.approx(mean.loss, rel=1e-12)
    np.testing.assert_allclose(other.parameters["weight_hh"], mean.parameters["weight_hh"], rtol=1e-10)


def test_class_weights_follow_the_dtype(data):
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.manual_seed(0)
    module = Net(nn.GRU)
    expected, _ = in_torch(module, data["values"], data["class"], copy.deepcopy(weighted).double())
    found = loss_gradient(module, data["values"], data["class"], loss=weighted)
    assert found.loss == pytest.approx(expected, rel=1e-12)
    assert weighted.weight.dtype == torch.float32


def test_estimators_bring_their_criterion_and_their_classes(data):
    X, labels = data["values"].numpy(), np.array(["a", "b", "c", "d"])[data["class"].numpy()]
    network = RNNClassifier("gru", HIDDEN, max_epochs=1, random_state=0).fit(X, labels)
    expected = -np.log(network.predict_proba(X)[np.arange(len(X)), np.searchsorted(network.classes_, labels)]).mean()
    assert loss_gradient(network, X, labels).loss == pytest.approx(expected, rel=1e-6)
    regressor = RNNRegressor("lstm", HIDDEN, readout="all", max_epochs=1, random_state=0)
    y = data["numbers"][..., 0].numpy()
    regressor.fit(X, y)
    expected = np.mean((regressor.predict(X) - y) ** 2)
    assert loss_gradient(regressor, X, y).loss == pytest.approx(expected, rel=1e-6)
    integers = np.arange(N_SEQUENCES * N_STEPS).reshape(N_SEQUENCES, N_STEPS)
    assert loss_gradient(regressor, X, integers).loss == pytest.approx(
        np.mean((regressor.predict(X) - integers) ** 2), rel=1e-6
    )


def test_one_input_per_step_and_tokens(data):
    X = data["values"][..., 0].numpy()
    network = RNNClassifier("rnn", HIDDEN, max_epochs=1, random_state=0).fit(X, data["class"].numpy())
    wide = loss_gradient(network, X[..., None], data["class"])
    assert loss_gradient(network, X, data["class"]).loss == wide.loss
    tokens = data["tokens"].numpy()
    for dim in (None, 3):
        network = RNNClassifier(
            "lstm", HIDDEN, input_type="tokens", embedding_dim=dim, readout="all", max_epochs=1, random_state=0
        ).fit(tokens, data["classes"].numpy())
        found = loss_gradient(network, tokens, data["classes"], ranks=[2 * HIDDEN])
        assert found.relative_error[0] < 1e-12


def test_skorch_nets_bring_their_criterion(data):
    net = NeuralNetRegressor(
        Net, module__kind=nn.GRU, module__n_outputs=1, max_epochs=1, train_split=None, verbose=0, criterion=nn.L1Loss
    )
    y = data["number"].unsqueeze(1)
    net.fit(data["values"], y)
    before = net.criterion_
    expected, _ = in_torch(net.module_, data["values"], y, nn.L1Loss())
    assert loss_gradient(net, data["values"], y).loss == pytest.approx(expected, rel=1e-12)
    assert net.criterion_ is before
    classifier = NeuralNetClassifier(Softmax, max_epochs=1, train_split=None, verbose=0)
    classifier.fit(data["values"], data["class"])
    expected, _ = in_torch(
        classifier.module_, data["values"], data["class"], lambda p, y: nn.functional.nll_loss(p.log(), y)
    )
    assert loss_gradient(classifier, data["values"], data["class"]).loss == pytest.approx(expected, rel=1e-12)
    binary = NeuralNetBinaryClassifier(
        Net, module__kind=nn.LSTM, module__n_outputs=1, max_epochs=1, train_split=None, verbose=0
    )
    y = data["class"] > 1
    binary.fit(data["values"], y.float())  # its net reshapes the outputs (n, 1) to (n,)
    expected, _ = in_torch(
        binary.module_,
        data["values"],
        y,
        lambda o, y: nn.functional.binary_cross_entropy_with_logits(o[:, 0], y.double()),
    )
    assert loss_gradient(binary, data["values"], y.long()).loss == pytest.approx(expected, rel=1e-12)


class Softmax(Net):
    def __init__(self):
        super().__init__(nn.GRU)

    def forward(self, x):
        return super().forward(x).softmax(-1)


def test_a_cell_that_knows_its_network_has_its_readout(data):
    torch.manual_seed(0)
    module = Net(nn.GRU)
    cell = as_recurrent_cell(module)
    assert loss_gradient(cell, data["values"], data["class"]).loss == pytest.approx(
        loss_gradient(module, data["values"], data["class"]).loss, rel=1e-12
    )
    assert cell.encoder.module.readout.weight.dtype == torch.float32  # a copy was analysed


def test_a_bare_layer_takes_a_loss_of_its_states(data):
    layer = nn.GRU(N_INPUTS, HIDDEN).double()
    x = data["values"].double()
    layer(x.transpose(0, 1))[0].square().mean().backward()
    found = loss_gradient(layer, x, data["class"], loss=lambda outputs, y: outputs[0].square().mean())
    np.testing.assert_allclose(found.parameters["weight_hh"], layer.weight_hh_l0.grad, rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_the_layer_computes(norm, data):
    torch.manual_seed(0)
    plain = Net(nn.GRU)
    normed = copy.deepcopy(plain)
    norm(normed.rnn, "weight_hh_l0")
    ours, theirs = (loss_gradient(m, data["values"], data["class"], ranks="auto") for m in (plain, normed))
    np.testing.assert_allclose(theirs.parameters["weight_hh"], ours.parameters["weight_hh"], rtol=1e-4, atol=1e-8)
    assert theirs.relative_error[-1] < 1e-12


def test_the_network_and_the_random_state_stay_as_they_are(data):
    torch.manual_seed(3)
    module = Net(nn.LSTM, "all", layers=2).train()
    module.readout.weight.requires_grad_(False)
    module.readout.bias.grad = torch.ones_like(module.readout.bias)
    before = copy.deepcopy(module.state_dict())
    rng = torch.get_rng_state()
    loss_gradient(module, data["values"], data["classes"], ranks="auto", parameters="all")
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training and module.dropout.training
    assert [p.requires_grad for p in module.readout.parameters()] == [False, True]
    assert [p.grad is not None for p in module.parameters()].count(True) == 1
    assert not module.rnn._forward_pre_hooks and "forward" not in vars(module.rnn)


def raises(message, network, X, y, error=ValueError, **options):
    with pytest.raises(error, match=message):
        loss_gradient(network, X, y, **options)


def test_bad_targets(data):
    X, y, network = data["values"], data["class"], Net(nn.GRU)
    raises("'targets' parameter must hold one target for each of the 6", network, X, y[:4])
    raises("'targets' parameter must hold a target for each sequence. Got None", network, X, None)
    raises(r"shape \(6,\). Got shape \(6, 9\)", network, X, data["classes"])
    raises(r"shape \(6, 4\). Got shape \(6,\)", network, X, data["number"])
    raises(r"shape \(6, 9\). Got shape \(6, 5\)", Net(nn.GRU, "all"), X, data["classes"][:, :5])
    raises("'targets' parameter must be finite", Net(nn.GRU, n_outputs=1), X, data["number"] / 0)
    raises("'targets' parameter must hold real numbers", network, X, ["a"] * 6, TypeError)
    raises("could not be computed from outputs of shape", network, X, y + 10)
    fitted = RNNClassifier("gru", 3, max_epochs=1).fit(X.numpy(), y.numpy())
    raises("classes that the network was fitted with. Got 17", fitted, X, y + 17)


def test_bad_losses(data):
    X, y, network = data["values"], data["class"], Net(nn.GRU)
    raises("'loss' parameter must be 'auto', 'cross_entropy', 'mse' or a callable", network, X, y, loss="hinge")
    accuracy = lambda outputs, y: (outputs.argmax(-1) == y).double().mean()  # noqa: E731
    raises("'loss' parameter must be differentiable", network, X, y, loss=accuracy)
    raises("differentiable tensor .* Got float", network, X, y, TypeError, loss=lambda o, y: float(o.detach().sum()))
    raises("Can't call numpy", network, X, y, loss=lambda o, y: o.numpy().mean())
    raises("is not finite", network, X, y, DivergedError, loss=lambda o, y: (o - o).log().mean())
    raises("over one class is zero", Net(nn.GRU, n_outputs=1), X, y)


def test_bad_networks(data):
    X, y = data["values"], data["class"]
    raises("must have a readout.*Got a bare GRU", nn.GRU(N_INPUTS, HIDDEN), X, y)
    raises("must have a readout.*Got a bare LSTMCell", as_recurrent_cell(nn.LSTM(N_INPUTS, HIDDEN)), X, y)
    raises("must hold a recurrent layer", nn.Linear(3, 4), X, y)
    raises("call fit first", RNNClassifier(), X, y)
    raises("depend differentiably on its recurrent layer", Deaf(), X, y)
    raises("sequences of one length", Net(nn.GRU), [X[0], X[1, :4]], y[:2], ranks=[1])


class Deaf(Net):
    def __init__(self):
        super().__init__(nn.GRU)

    def forward(self, x):
        super().forward(x)
        return x[:, 0] @ torch.ones(N_INPUTS, N_CLASSES).to(x)
