"""Checkpoints that are kept on a server: the training is on one node, and goes on on another."""

from dataclasses import replace

import pytest

import mis.train.remote_checkpoints
from mis.errors import WorkerError
from mis.train.checkpoint import Checkpoints
from mis.train.remote_checkpoints import RemoteCheckpoints, send_checkpoints
from tests.train.test_checkpoint import history, model, restore, same, state, train


@pytest.fixture
def kept(tmp_path, remote):
    """The checkpoints as the process sees them that has started the training."""
    return RemoteCheckpoints(tmp_path / "project" / "training" / "seen", remote=remote, identity="first")


@pytest.fixture
def said():
    return []


def save(checkpoints, made, *dices, improved=True):
    checkpoints.save(made, history(*dices), improved=improved)


def lose_the_server(kept, storage_server):
    """Train two epochs, of which the server has the first alone, to the end."""
    made = model()
    with kept.here() as own:
        save(own, made, 0.1)
        storage_server.down()
        save(own, made, 0.1, 0.2)


def test_a_training_goes_on_on_another_node(kept, node, tmp_path, said):
    made = model()
    node(tmp_path / "n1")
    with kept.here(say=said.append) as own:
        assert own.newest() is None
        for epoch in range(1, 4):
            train(made)
            save(own, made, *[0.1] * epoch)
            assert kept.history() == history(*[0.1] * epoch), "it is there before it is reported"
    assert not list((tmp_path / "n1").glob("**/epoch-*")), "nothing is left on the node"
    node(tmp_path / "n2")
    other = model(1)
    with kept.here(say=said.append) as own:
        assert [path.name for path in sorted(own.folder.glob("epoch-*"))] == ["epoch-0002", "epoch-0003"]
        assert restore(other, own.newest()) == history(0.1, 0.1, 0.1)
        assert same(state(other), state(made))
    assert said == []


def test_who_does_not_train_sees_the_histories_and_fetches_the_model(kept, node, tmp_path):
    node(tmp_path / "n1")
    made = model()
    with kept.here() as own:
        save(own, made, 0.1)
        save(own, made, 0.1, 0.3)
        save(own, made, 0.1, 0.3, 0.2, improved=False)
    assert kept.history() == history(0.1, 0.3, 0.2)
    assert kept.has_seen(3)
    assert not kept.has_seen(4)
    assert [path.name for path in kept.folder.glob("epoch-*/*")] == ["history.json"] * 2
    kept.fetch_model()
    import keras

    assert same(keras.models.load_model(kept.newest() / "best.keras").get_weights(), made.get_weights())


def test_a_worker_that_does_not_write_fetches_what_the_chief_has_sent(kept, node, tmp_path):
    node(tmp_path / "n1")
    made = model()
    with kept.here() as chief, kept.here(writes=False) as other:
        assert other.newest() is None
        train(made)
        save(chief, made, 0.1)
        assert other.history(at_least=1) == history(0.1)
        beside = model(1)
        restore(beside, other.newest())
        assert same(state(beside), state(made))


def test_while_the_server_is_away_the_training_goes_on(kept, storage_server, node, tmp_path, said):
    node(tmp_path / "n1")
    made = model()
    with kept.here(say=said.append) as own:
        save(own, made, 0.1)
        storage_server.down()
        try:
            save(own, made, 0.1, 0.2)
            save(own, made, 0.1, 0.2, 0.3)
            assert own.history() == history(0.1, 0.2, 0.3)
            assert kept.history() == history(), "nobody else has seen an epoch yet"
        finally:
            storage_server.up()
    assert kept.history() == history(0.1, 0.2, 0.3)
    assert ["does not answer" in said[0], "answers again" in said[1]] == [True, True]


def test_what_could_not_be_sent_waits_on_the_node_and_is_gone_on_from_there(kept, storage_server, node, tmp_path):
    node(tmp_path / "n1")
    with pytest.raises(WorkerError, match=r"has not taken the last checkpoints.*they wait in .*n1"):
        lose_the_server(kept, storage_server)
    storage_server.up()
    node(tmp_path / "n2")
    with kept.here() as own:
        assert own.history() == history(0.1), "another node has what was sent"
    node(tmp_path / "n1")
    with kept.here() as own:
        assert own.history() == history(0.1, 0.2)
    assert kept.history() == history(0.1, 0.2)


def test_what_waits_on_a_node_does_not_count_where_another_has_gone_on(kept, storage_server, node, tmp_path):
    node(tmp_path / "n1")
    made = model()
    with pytest.raises(WorkerError):
        lose_the_server(kept, storage_server)
    storage_server.up()
    node(tmp_path / "n2")
    with kept.here() as own:
        save(own, made, 0.1, 0.5)
        save(own, made, 0.1, 0.5, 0.6)
    node(tmp_path / "n1")
    with kept.here() as own:
        assert own.history() == history(0.1, 0.5, 0.6)


def test_what_waits_on_a_node_of_another_training_of_the_same_name_does_not_count(kept, storage_server, node, tmp_path):
    node(tmp_path / "n1")
    with pytest.raises(WorkerError):
        lose_the_server(kept, storage_server)
    storage_server.up()
    kept.remove()
    for identity in ("second", ""):
        with replace(kept, identity=identity).here() as own:
            assert own.history() == []


def test_checkpoints_of_this_machine_are_sent_and_nothing_of_them_is_lost(kept, node, tmp_path, said):
    plain, made = Checkpoints(tmp_path / "project" / "training"), model()
    for epoch in range(1, 4):
        train(made)
        save(plain, made, *[0.1] * epoch)
    assert kept.history() == []
    assert len(plain.history()) == 3, "to look at what is on the server deletes nothing here"
    send_checkpoints(plain, kept, said.append)
    assert plain.history() == []
    node(tmp_path / "n1")
    with kept.here() as own:
        other = model(1)
        assert restore(other, own.newest()) == history(0.1, 0.1, 0.1)
        assert same(state(other), state(made))
    assert said == [f"the checkpoints in {plain.folder} go to {kept.remote.url}"]
    save(plain, made, 0.5)
    send_checkpoints(plain, kept, said.append)
    assert kept.history() == history(0.1, 0.1, 0.1), "the server has more"


def test_one_that_is_interrupted_sends_what_it_has(kept, node, tmp_path):
    node(tmp_path / "n1")

    def interrupted():
        with kept.here() as own:
            save(own, model(), 0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert kept.history() == history(0.1)


def test_half_of_a_checkpoint_does_not_count(kept, node, tmp_path, remote):
    node(tmp_path / "n1")
    with kept.here() as own:
        save(own, model(), 0.1)
    for name in ("last.npz", "best.keras"):
        remote.write(b"half", f"epoch-0002/{name}")
    remote.write(b"[]", "epoch-0003/history.json")
    assert kept.history() == history(0.1)
    with kept.here() as own:
        assert own.history() == history(0.1)


def test_clearing_deletes_them_there_too_and_an_outage_is_no_error(kept, storage_server, node, tmp_path, remote):
    node(tmp_path / "n1")
    with kept.here() as own:
        save(own, model(), 0.1)
    remote.write(b"", "other")
    storage_server.down()
    try:
        kept.clear()
    finally:
        storage_server.up()
    assert len(remote.list()) == 4
    kept.clear()
    assert list(remote.list()) == ["other"]
    assert kept.history() == []


def test_two_processes_of_a_node_do_not_train_the_same(kept, node, tmp_path, monkeypatch):
    monkeypatch.setattr(mis.train.remote_checkpoints, "LOCK_S", 0.1)
    node(tmp_path / "n1")
    with kept.here(), pytest.raises(WorkerError, match="another process of this node trains the same"), kept.here():
        pass


def test_weights_are_taken_over_from_another_training(kept, remote, node, tmp_path):
    node(tmp_path / "n1")
    donor = RemoteCheckpoints(tmp_path / "donor", remote=remote.below("donor"))
    mine, better = model(), model(1)
    train(better)
    with donor.here() as own:
        save(own, better, 0.1, 0.9)
    with kept.here() as own:
        save(own, mine, 0.2)
    node(tmp_path / "n2")
    with kept.here() as own, donor.here(writes=False) as others:
        assert own.take_weights(others, at_least=2)
    node(tmp_path / "n3")
    with kept.here() as own:
        got = model(2)
        assert restore(got, own.newest()) == history(0.2)
        assert same(state(got), state(better))


def test_those_of_a_shared_folder_are_where_they_are(tmp_path):
    kept = Checkpoints(tmp_path)
    with kept.here() as own:
        assert own == kept
    assert not kept.may_lack_epochs
