"""Clients of others against the server: OpenAI's own package, lm-eval, and requests made from the OpenAPI document.

LOWBIT_PROGRAM names the program; .ci/serve builds it and runs this file. The model is the one inside the program.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import openai
import pytest

KEY = "sk-test-0123456789"
ROOT = os.path.join(os.path.dirname(__file__), "..", "..", "..")


@pytest.fixture(scope="module")
def url():
    """The address of a server that runs as long as the tests of this file."""
    command = [os.environ["LOWBIT_PROGRAM"], "serve", "--port", "0", "--alias", "reviews"]
    server = subprocess.Popen(command, env={**os.environ, "LOWBIT_API_KEY": KEY}, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    yield line.split(" at ")[1].split("/v1")[0]
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


TOOLS = (
    "{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    '{% for call in m.tool_calls %}<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}{% endfor %}<assistant>"
)


@pytest.fixture(scope="module")
def calling(tmp_path_factory):
    """A client of the same model with a template that tells of functions."""
    home = tmp_path_factory.mktemp("models") / "calling"
    shutil.copytree(os.path.join(ROOT, "crates/lowbit/models/default"), home)
    config = json.loads((home / "config.json").read_text()) | {"chat_template": TOOLS}
    (home / "config.json").write_text(json.dumps(config))
    server = subprocess.Popen([os.environ["LOWBIT_PROGRAM"], "serve", home, "--port", "0"], stdout=subprocess.PIPE, text=True)
    base = server.stdout.readline().split(" at ")[1].split("/v1")[0]
    yield openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
    server.kill()


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0)


def post(url, path, body):
    headers = {"authorization": "Bearer " + KEY, "content-type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


ASKED = dict(model="reviews", messages=[{"role": "user", "content": "this film is"}], seed=5, max_tokens=24)


def test_chat(client):
    whole = client.chat.completions.create(**ASKED)
    assert whole.choices[0].message.role == "assistant" and whole.usage.completion_tokens <= 24
    pieces = list(client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage == whole.usage.model_copy(update={"prompt_tokens_details": pieces[-1].usage.prompt_tokens_details})
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_log_probabilities(client):
    answer = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3, temperature=0)
    for token in answer.choices[0].logprobs.content:
        assert token.logprob == token.top_logprobs[0].logprob <= 0 and len(token.top_logprobs) == 3
    assert b"".join(bytes(token.bytes) for token in answer.choices[0].logprobs.content).decode() == answer.choices[0].message.content


def test_completions(client):
    answer = client.completions.create(model="lowbit", prompt=["a film", "an actor"], n=2, max_tokens=5, echo=True, logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(choice.text.startswith(prompt) for choice, prompt in zip(answer.choices, ["a film"] * 2 + ["an actor"] * 2))
    told = answer.choices[0].logprobs
    assert told.token_logprobs[0] is None and told.text_offset[:6] == list(range(6)) and len(told.tokens) == len(told.top_logprobs)
    streamed = client.completions.create(model="lowbit", prompt="a film", max_tokens=5, temperature=0, stream=True)
    whole = client.completions.create(model="lowbit", prompt="a film", max_tokens=5, temperature=0)
    assert "".join(piece.choices[0].text for piece in streamed) == whole.choices[0].text


def test_models(client):
    assert [model.id for model in client.models.list()] == ["lowbit", "reviews"]
    assert client.models.retrieve("reviews").id == "reviews"


def test_errors(client, url):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASKED, "temperature": 3})
    assert refused.value.param == "temperature" and "0..=2" in str(refused.value)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASKED, "model": "gpt-5"})
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASKED, "messages": [{"role": "user", "content": "long " * 200}]})
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url + "/v1", api_key="wrong-key", max_retries=0).models.list()


def test_lm_eval(url, tmp_path):
    """A task of choices by likelihood and one of generation: the sums are those of the server, the choices follow."""
    rows = [{"text": f"row {i}: the film is", "choices": [" good and", " xqzv"], "label": i % 2} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'rows.jsonl'}\ntest_split: test\n"
    (tmp_path / "choose.yaml").write_text(
        f"task: choose\n{source}output_type: multiple_choice\ndoc_to_text: '{{{{text}}}}'\ndoc_to_choice: '{{{{choices}}}}'\n"
        "doc_to_target: label\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n"
    )
    (tmp_path / "write.yaml").write_text(
        f"task: write\n{source}output_type: generate_until\ndoc_to_text: '{{{{text}}}}'\ndoc_to_target: '{{{{choices[0]}}}}'\n"
        "generation_kwargs:\n  until: ['.']\n  max_gen_toks: 12\nmetric_list:\n  - metric: exact_match\n"
    )
    arguments = f"model=lowbit,base_url={url}/v1/completions,num_concurrent=3,max_length=256,max_retries=1,auth_token={KEY}"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", "choose,write"]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OPENAI_API_KEY": KEY}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    samples = {}
    for path in (tmp_path / "out").rglob("samples_*.jsonl"):
        samples[path.name.split("_")[1]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(samples[task]) for task in ("choose", "write")] == [6, 6]
    for sample in samples["choose"]:
        for choice, (found, _) in zip(sample["doc"]["choices"], sample["filtered_resps"]):
            asked = {"prompt": sample["doc"]["text"] + choice, "max_tokens": 0, "echo": True, "logprobs": 0}
            told = post(url, "/v1/completions", asked)["choices"][0]["logprobs"]["token_logprobs"]
            assert math.isclose(float(found), sum(told[-len(choice):]), rel_tol=1e-5)
        likely = max(range(2), key=lambda i: float(sample["filtered_resps"][i][0]))
        assert sample["acc"] == (likely == sample["doc"]["label"])
    for sample in samples["write"]:
        asked = {"prompt": sample["doc"]["text"], "max_tokens": 12, "temperature": 0, "stop": ["."]}
        assert sample["filtered_resps"][0] == post(url, "/v1/completions", asked)["choices"][0]["text"]


WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object", "additionalProperties": False, "required": ["city", "days"],
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    },
}


def test_calls_of_functions(calling):
    """A function that must be called is, whole, in pieces, and in both interfaces; its result goes back in."""
    tool, named = {"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "weather"}}
    turns = [{"role": "user", "content": "Weather?"}]
    asked = dict(model="calling", messages=turns, tools=[tool], tool_choice=named, seed=3, max_tokens=120)
    choice = calling.chat.completions.create(**asked).choices[0]
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert choice.finish_reason == "tool_calls" and call.function.name == "weather"
    assert arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9
    with calling.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    turns += [choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    again = calling.chat.completions.create(**{**asked, "messages": turns, "tool_choice": "auto", "max_tokens": 8})
    assert again.choices[0].finish_reason in ("stop", "length")
    flat = {"type": "function", **WEATHER}
    response = calling.responses.create(model="calling", input="Weather?", tools=[flat], tool_choice="required", max_output_tokens=120)
    (item,) = [item for item in response.output if item.type == "function_call"][:1]
    assert item.name == "weather" and json.loads(item.arguments)["city"] in ("Paris", "Rome")
    kinds = [event.type for event in calling.responses.create(model="calling", input="a", tools=[flat], tool_choice="required", stream=True)]
    # A network of random weights may go on to call until its context is full.
    assert "response.function_call_arguments.done" in kinds and kinds[-1] in ("response.completed", "response.incomplete")


def test_tools_without_a_template(client):
    with pytest.raises(openai.BadRequestError, match="takes no tools"):
        client.chat.completions.create(**ASKED, tools=[{"type": "function", "function": WEATHER}])


@pytest.mark.parametrize("command", [
    ["serve_load.py", "--seconds", "4", "--clients", "24", "--malformed", "60", "--slow", "300"],
    ["serve_prefill.py", "--streams", "4", "--tokens", "64", "--rounds", "1", "--most", "20"],
])
def test_under_load(command):
    """The programs of tools/bench/ that load a server, for a few seconds: no crash, no other answer, nobody held up."""
    script, *rest = command
    given = [sys.executable, os.path.join(ROOT, "tools/bench", script), os.environ["LOWBIT_PROGRAM"], *rest]
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_speed_of_the_server():
    """serve_speed.py sets the server beside the engine; its figures count on a machine that does nothing else."""
    model = os.path.join(ROOT, "crates/lowbit/models/default")
    given = [sys.executable, os.path.join(ROOT, "tools/bench/serve_speed.py"), os.environ["LOWBIT_PROGRAM"], model]
    given += ["--concurrent", "2", "--rounds", "1", "--seconds", "1", "--max-tokens", "16", "--share", "0"]
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 0 and "2 requests at a time" in done.stdout, done.stdout + done.stderr


def test_the_deployment_fits_together():
    """Labels, ports and volumes of deploy/kubernetes.yaml name one another, and the probes ask for what is served."""
    yaml = pytest.importorskip("yaml")
    with open(os.path.join(ROOT, "deploy", "kubernetes.yaml")) as file:
        deployment, service = yaml.safe_load_all(file)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all(probe == {"path": "/health", "port": container["ports"][0]["name"]} for probe in probes)
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["spec"]["volumes"]]
    assert pod["spec"]["terminationGracePeriodSeconds"] > 30


def test_requests_made_from_the_document(url):
    """Requests that the OpenAPI document allows, and ones it does not, get no answer of 500 and above."""
    examples = os.environ.get("LOWBIT_FUZZ_EXAMPLES", "20")
    command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", url + "/openapi.json"]
    command += ["--header", "Authorization: Bearer " + KEY, "--checks", "not_a_server_error", "--max-examples", examples]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
