import json
import threading

import numpy as np
import pytest
import torch

from mgoe.config import TrainingSettings
from mgoe.errors import OutputError, TrainingError
from mgoe.training import fit, load_weights, predict
from mgoe.training.monitor import Monitor
from mgoe.training.predict import look_inside
from tests.training.fakes import Model, make_feed

TRAIN, VALID = make_feed(3000, seed=1), make_feed(600, seed=2, snapshots=1)


def training(**changes):
    return TrainingSettings(
        **{"epochs": 3, "batch_size": 256, "learning_rate": 0.02, "precision": "float32", **changes}
    )


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(tmp_path):
    model = Model()
    result = fit(model, TRAIN, VALID, training(epochs=6), tmp_path)
    assert result.best_value > 0.72
    losses = [sum(epoch["losses"].values()) for epoch in result.curves]
    assert losses[-1] < losses[0] - 0.1


def test_reports_tell_the_mean_loss_of_each_task_over_the_epoch_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.training.loop.REPORT_STEPS", 1)
    seen = []
    result = fit(Model(), TRAIN, VALID, training(), tmp_path, seen.append)
    for epoch in range(3):
        reports = [now for now in seen if now.epoch == epoch + 1]
        assert len(reports) == 12
        so_far = np.cumsum([now.loss for now in reports]) / np.arange(1, 13)
        np.testing.assert_allclose([sum(now.losses.values()) for now in reports], so_far, rtol=1e-5)
        assert reports[-1].losses == result.curves[epoch]["losses"]
        assert reports[0].last == (result.curves[epoch - 1] if epoch else {})


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    runs = []
    for seed, dropout in ((5, 0.2), (5, 0.2), (6, 0.2), (5, 0.0), (6, 0.0)):
        torch.rand(3)  # the processes's random state is not the fit's
        model = Model(seed=0, dropout=dropout)
        result = fit(model, TRAIN, VALID, training(precision="bfloat16"), tmp_path, seed=seed)
        runs.append((weights(model), result.best_value))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not equal(runs[0][0], runs[2][0])
    assert not equal(runs[3][0], runs[4][0])  # by the order of examples alone


def test_an_epoch_is_the_plain_loop(tmp_path):
    model, plain = Model(), Model()
    fit(model, TRAIN, VALID, training(epochs=1), tmp_path, seed=4)
    adam = torch.optim.AdamW(plain.dense(), lr=0.02, weight_decay=1e-5)
    squares = [torch.zeros(len(table), 1) for table in plain.tables()]
    for step, batch in enumerate(TRAIN.batches(256, shuffle_seed=(4, 1))):
        rate = 1 - step / 12
        gradients = torch.autograd.grad(plain.loss(batch)[0], plain.dense() + plain.tables())
        for parameter, gradient in zip(plain.dense(), gradients, strict=False):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(plain.dense(), 1.0)
        adam.param_groups[0]["lr"] = 0.02 * rate
        adam.step()
        with torch.no_grad():
            for table, square, sparse in zip(plain.tables(), squares, gradients[-2:], strict=True):
                gradient = sparse.to_dense()
                square += gradient.square().mean(1, keepdim=True)
                table -= 0.05 * rate * gradient / (square.sqrt() + 1e-8)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=2e-5, rtol=1e-4)


def test_dense_gradients_are_clipped(tmp_path):
    class Steep(Model):
        def loss(self, batch, totals=None):
            total, of_tasks = super().loss(batch, totals)
            return total * 1000, of_tasks

    model = Steep()
    fit(model, TRAIN, VALID, training(epochs=1), tmp_path)
    norm = torch.cat([p.grad.flatten() for p in model.dense()]).norm()  # of the last step
    assert norm == pytest.approx(1.0, rel=1e-3)


def test_the_worlds_random_state_is_left_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(Model(), TRAIN, VALID, training(epochs=1), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def scripted(monkeypatch):
    """Validation that answers from a list, and the weights that it was asked about."""

    def script(values):
        asked = []
        left = iter([0.5, *values])  # the first is asked of constants, before training
        monkeypatch.setattr(Monitor, "value", lambda self, scores: next(left))
        original = predict

        def spy(model, feed):
            asked.append(weights(model))
            return original(model, feed)

        monkeypatch.setattr("mgoe.training.loop.predict", spy)
        return asked

    return script


@pytest.mark.parametrize(
    ("monitor", "values", "best", "done"),
    [
        ("all.auc", [0.6, 0.7, 0.65, 0.69, 0.8], 2, 4),
        ("all.auc", [0.6, 0.5, 0.7, 0.6, 0.8], 5, 5),
        ("all.auc", [0.6, 0.6, 0.6, 0.6, 0.8], 1, 3),
        ("buy.logloss", [0.6, 0.7, 0.5, 0.69, 0.8], 3, 5),
    ],
)
def test_the_best_epochs_weights_are_restored(tmp_path, scripted, monitor, values, best, done):
    asked = scripted(values)
    model = Model()
    result = fit(model, TRAIN, VALID, training(epochs=5, patience=2, monitor=monitor), tmp_path)
    assert (result.best_epoch, result.best_value, result.epochs) == (best, values[best - 1], done)
    assert equal(weights(model), asked[best - 1])
    again = Model(seed=9)
    assert load_weights(again, tmp_path / "model.safetensors")["epoch"] == best
    assert equal(weights(again), asked[best - 1])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_the_best_weights_are_restored_when_a_later_epoch_breaks_off(tmp_path, scripted, stop):
    asked = scripted([0.7, 0.6, 0.5])
    model = Model()

    def interrupt(progress):
        if progress.epoch == 2:
            raise stop

    with pytest.raises(stop):
        fit(model, TRAIN, VALID, training(), tmp_path, on_progress=interrupt)
    assert equal(weights(model), asked[0])
    assert not [thread for thread in threading.enumerate() if thread.name == "mgoe-ahead"]


def test_curves_and_progress_tell_the_whole_fit(tmp_path):
    seen = []
    result = fit(Model(), TRAIN, VALID, training(epochs=2), tmp_path, on_progress=seen.append)
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves["best_epoch"] == result.best_epoch
    assert [epoch["step"] for epoch in curves["epochs"]] == [12, 24]
    for epoch in curves["epochs"]:
        assert set(epoch["losses"]) == set(epoch["validation"]) == {"click", "buy"}
        assert set(epoch["validation"]["buy"]) == {"auc", "gauc", "logloss"}
        assert len(epoch["watch"]["bias"]) == 2
        assert epoch["seconds"] > 0
        assert epoch["samples_per_second"] > 0
    assert [(p.step, p.steps) for p in seen] == [(12, 24), (24, 24)]
    assert seen[0].monitor is None
    assert seen[1].monitor == curves["epochs"][0]["monitor"]


def test_looking_inside_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    look_inside(Model(dropout=0.5), VALID)
    assert torch.equal(torch.get_rng_state(), before)


class OfTables(Model):
    """A product of embeddings, and nothing else to learn."""

    def forward(self, batch):
        return torch.stack([(self.users(batch["user"]) * self.items(batch["item"])).sum(1)] * 2, 1)

    def dense(self):
        return []


def test_a_model_of_tables_alone_is_fitted(tmp_path):
    assert fit(OfTables(), TRAIN, VALID, training(epochs=2), tmp_path).epochs == 2  # type: ignore[arg-type]


def test_predictions_are_in_order_without_dropout_and_need_no_labels():
    model = Model(dropout=0.5)
    found = predict(model, VALID, batch_size=97)
    batch = VALID.block(np.arange(len(VALID)))
    del batch["labels"], batch["weight"], batch["position"]
    assert model.training
    np.testing.assert_allclose(found, model.eval().predict(batch).detach(), atol=1e-6)


class Broken(Model):
    """Sets one parameter to NaN in the fifth step."""

    def loss(self, batch, totals=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 5:
            with torch.no_grad():
                self.head.bias[1] = torch.nan
        return super().loss(batch, totals)


def test_a_loss_that_is_no_number_stops_with_batch_task_and_parameter(tmp_path):
    with pytest.raises(
        TrainingError,
        match=r"epoch 1, batch 5: the loss of task 'buy' is nan; parameter 'head.bias' is the first",
    ):
        fit(Broken(), TRAIN, VALID, training(), tmp_path)


def test_an_input_that_is_no_number_is_named(tmp_path):
    feed = make_feed(300)
    inputs = feed._inputs_of

    def spoiled(examples):
        batch = inputs(examples)
        batch["counts"][7, 1] = torch.inf
        return batch

    feed._inputs_of = spoiled  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"every parameter is finite, the input 'counts' is not"):
        fit(Model(), feed, VALID, training(batch_size=300), tmp_path)


def test_what_cannot_end_well_is_refused_before_training(tmp_path):
    one_class = make_feed(50)
    one_class.examples.labels[:] = 0
    with pytest.raises(TrainingError, match=r"'all.ranking' is not defined on validation"):
        fit(Model(), TRAIN, one_class, training(), tmp_path)
    with pytest.raises(TrainingError, match="validation examples: there must be at least one"):
        fit(Model(), TRAIN, make_feed(0), training(), tmp_path)
    with pytest.raises(TrainingError, match=r"training.device: 'cuda:99' needs a GPU that is not there"):
        fit(Model(), TRAIN, VALID, training(device="cuda:99"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        fit(Model(), TRAIN, VALID, training(), tmp_path / "file" / "out")


def test_fewer_examples_than_a_batch_are_one_batch(tmp_path):
    assert fit(Model(), make_feed(20), VALID, training(epochs=1), tmp_path).curves[0]["step"] == 1
