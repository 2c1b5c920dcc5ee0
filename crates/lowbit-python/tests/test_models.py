import pickle
import threading
import time

import numpy as np
import pytest
from conftest import data, module

import lowbit


def test_an_answer_comes_in_pieces():
    model = lowbit.Model.open(lowbit.SHIPPED)
    assert model.kind == "text" and model.parameters > 1000 and model.nbytes > 1000
    answer = model.generate("This film is", max_tokens=12, seed=7)
    assert answer.outcome is None
    pieces = list(answer)
    outcome = answer.outcome
    assert len(pieces) > 1 and "".join(pieces) == outcome["text"] and len(outcome["tokens"]) <= 12
    assert outcome["finish"] in ("length", "stop") and list(answer) == []
    again = model.generate("This film is", max_tokens=12, seed=7).text()
    other = model.generate("This film is", max_tokens=12, seed=8).text()
    assert again == outcome["text"] != other
    assert model.chat("This film is", max_tokens=4, temperature=0.0).text()


def test_a_stop_text_ends_an_answer():
    model = lowbit.Model.open(lowbit.SHIPPED)
    whole = model.generate("This film is", max_tokens=40, temperature=0.0).text()
    word = whole.split()[2]
    assert model.generate("This film is", max_tokens=40, temperature=0.0, stop=[word]).text() == whole[: whole.index(word)]


def test_a_model_under_another_recipe():
    model = lowbit.Model.open(lowbit.SHIPPED)
    other = model.recipe("bf16") if model.recipe_name != "bf16" else model.recipe("f32")
    assert (other.path, other.recipe_name != model.recipe_name) == (model.path, True)
    with pytest.raises(lowbit.UnknownNameError, match="ternry") as caught:
        model.recipe("ternry")
    assert caught.value.nearest == "ternary"


def test_what_a_model_lacks_is_said():
    model = lowbit.Model.open(lowbit.SHIPPED)
    with pytest.raises(lowbit.UnsupportedError, match="has no classes; call `chat` or `generate`"):
        model.classify("x")
    with pytest.raises(lowbit.RequestError, match="temperature"):
        model.generate("x", temperature=-1.0)
    with pytest.raises(lowbit.ContextFullError) as caught:
        lowbit.Model.open(lowbit.SHIPPED, context=16).chat("word " * 100)
    assert caught.value.prompt > caught.value.context == 16
    with pytest.raises(lowbit.FileError, match="no-such-model"):
        lowbit.Model.open("no-such-model")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(lowbit.InputError, match="model.safetensors") as caught:
        lowbit.Model.open(path)
    assert caught.value.path.endswith("model.safetensors")


def test_texts_are_classified(classifier):
    model = lowbit.Model.open(classifier)
    texts = ["a lovely film", "an awful film"]
    answer = model.classify(texts)
    assert len(answer) == 2 and answer.names == model.names and answer.probabilities.shape == (2, len(model.names))
    assert np.allclose(answer.probabilities.sum(axis=1), 1) and answer.classes.dtype == np.int64
    assert answer.labels == [answer.names[c] for c in answer.classes] == [answer.names[i] for i in answer.probabilities.argmax(1)]
    assert model.classify(texts[0]).labels == answer.labels[:1]
    for same in [tuple(texts), np.array(texts), np.array(texts, dtype=object)]:
        assert (model.classify(same).probabilities == answer.probabilities).all()
    assert len(model.classify([])) == 0
    with pytest.raises(lowbit.RequestError, match="row 1 is int"):
        model.classify(["a", 1])
    with pytest.raises(lowbit.RequestError, match="numbers"):
        model.classify(np.zeros((2, 3)))


def test_series_of_texts(classifier):
    model = lowbit.Model.open(classifier)
    texts = ["a lovely film", "an awful film", "a film"]
    expected = model.classify(texts).labels
    for name in ["pandas", "polars", "pyarrow"]:
        package = module(name)
        series = package.array(texts) if name == "pyarrow" else package.Series(texts)
        assert model.classify(series).labels == expected, name


def test_evaluation_has_measures(classifier):
    record = lowbit.Model.open(classifier).evaluate("quickstart", limit=100)
    accuracy = record["measures"]["accuracy"]
    assert record["task"].startswith("quickstart") and accuracy["n"] == 100 and 0.5 < accuracy["value"] <= 1
    assert accuracy["lo"] < accuracy["value"] and accuracy["how"] == "measured"
    with pytest.raises(lowbit.RequestError, match="quickstrt"):
        lowbit.Model.open(classifier).evaluate("quickstrt")


def test_a_pickled_model_is_opened_again(classifier, monkeypatch):
    monkeypatch.chdir(classifier.parent)
    model = lowbit.Model.open(classifier.name, recipe="int8", threads=1)
    content = pickle.dumps(model)
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert (again.recipe_name, again.path) == ("int8", str(classifier.resolve()))
    assert pickle.loads(pickle.dumps(lowbit.Model.open(lowbit.SHIPPED))).path == lowbit.SHIPPED
    assert again.classify("a film").labels == lowbit.Model.open(classifier).recipe("int8").classify("a film").labels


def test_other_threads_run_while_a_model_computes(classifier):
    model = lowbit.Model.open(classifier)
    texts = ["a lovely film of some length that takes a moment"] * 20000
    model.classify(texts[:1])
    ticks, done = [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.monotonic()
    model.classify(texts)
    spent = time.monotonic() - start
    done.set()
    counter.join()
    within = [tick for tick in ticks if start < tick < start + spent]
    assert len(within) > 3, f"{len(within)} ticks in {spent} s"


def test_threads_share_a_model(classifier):
    model = lowbit.Model.open(classifier)
    expected = model.classify("a lovely film").probabilities
    answers = [None] * 4

    def ask(i):
        answers[i] = model.classify("a lovely film").probabilities

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all((answer == expected).all() for answer in answers)


def test_vectors_of_texts():
    model = lowbit.Model.open(data("weights/minilm-l6-v2"))
    vectors = model.embed(["Oil prices fall", "Crude gets cheaper", "A cat sleeps"])
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
