from __future__ import annotations

import base64
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from cloud import deploy
from cloud.serving_model import prediction_request, top_predictions
from configs.cloud import DeployOptions
from configs.errors import InputError
from preprocess.images.decode import decode_image
from preprocess.images.probe_images import probe_images
from tests.support.cloud_job import JOB_DIR, LABELS, FakeGcloud, put_model

MODEL = ("--model_dir", f"{JOB_DIR}/training/")
PARENT = "projects/1/locations/us-central1"
BUCKET_LABEL = hashlib.sha256(b"bucket").hexdigest()[:16]
ENDPOINT = {"name": f"{PARENT}/endpoints/3", "displayName": "hugs", "labels": {"hugs_bucket": BUCKET_LABEL}}
ANSWER = {"predictions": [{"key": "x", "label": "not-hugs", "scores": [0.25, 0.75], "confident": True}]}


def fake(**answers):
    deployed = ENDPOINT | {"deployedModels": [{"id": "77", "model": f"{PARENT}/models/7"}]}
    return FakeGcloud(
        **{
            "artifacts repositories describe": {},
            "models list": [],
            "models upload": {"model": f"{PARENT}/models/7"},
            "endpoints list": [],
            "endpoints create": ENDPOINT,
            "endpoints deploy-model": None,
            "endpoints describe": deployed,
            "endpoints predict": ANSWER,
            **answers,
        }
    )


def refusal(*flags, run=None):
    with pytest.raises(InputError) as error:
        deploy.main([*MODEL, *flags], run=run or FakeGcloud())
    return str(error.value)


def flag(command, name):
    return next(word.partition("=")[2] for word in command if word.startswith(f"--{name}="))


def test_a_model_is_put_behind_a_new_endpoint(gcs, capsys):
    put_model(gcs)
    run = fake()
    assert deploy.main(MODEL, run=run) == 0
    (upload,) = run.named("ai", "models", "upload")
    artifact = flag(upload, "artifact-uri")
    staged = [name for name in gcs.names("bucket") if f"gs://bucket/{name}".startswith(f"{artifact}/1/")]
    assert sorted(name.partition("/1/")[2] for name in staged) == [
        "assets.extra/model.json",
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    # The graph comes last: it makes a folder a model.
    assert "saved_model.pb" in [one.request for one in gcs.exchanges if "alt=media" in one.request][-1]
    assert (
        flag(upload, "container-image-uri")
        == "us-central1-docker.pkg.dev/loopback/docker-hub/tensorflow/serving:2.21.0"
    )
    assert flag(upload, "container-args") == "--model_base_path=$(AIP_STORAGE_URI),--file_system_poll_wait_seconds=0"
    assert flag(upload, "container-predict-route") == "/v1/models/model:predict"
    (deployed,) = run.named("ai", "endpoints", "deploy-model")
    assert deployed[4] == "3"
    assert flag(deployed, "model") == "7"
    assert flag(deployed, "traffic-split") == "0=100"
    assert flag(deployed, "machine-type") == "n1-standard-4"
    assert flag(run.named("ai", "endpoints", "create")[0], "labels") == f"hugs_bucket={BUCKET_LABEL}"
    said = capsys.readouterr().out
    for words in (
        "costs money as long as a model is deployed there",
        "undeploy-model 3 --project=loopback --region=us-central1 --deployed-model-id=77",
        "gcloud ai endpoints delete 3",
        "gcloud ai models delete 7",
        "a drawn picture: not-hugs\n   75.0%  not-hugs\n   25.0%  hugs\n",
        "RANDOM weights",
    ):
        assert words in said


def test_the_same_command_goes_on_where_it_ended(gcs, capsys):
    put_model(gcs)
    run = fake()
    deploy.main(MODEL, run=run)
    (upload,) = run.named("ai", "models", "upload")
    digest = flag(upload, "labels").removeprefix("hugs_model=")
    older = ENDPOINT | {"deployedModels": [{"id": "5", "model": f"{PARENT}/models/6@1"}]}
    again = fake(**{"models list": [{"name": f"{PARENT}/models/7"}], "endpoints list": [older]})
    again.answers["endpoints describe"]["deployedModels"] += older["deployedModels"]
    assert deploy.main(MODEL, run=again) == 0
    assert flag(again.named("ai", "models", "list")[0], "filter") == f"labels.hugs_model={digest}"
    assert not again.named("ai", "models", "upload") + again.named("ai", "endpoints", "create")
    assert again.named("ai", "endpoints", "deploy-model")
    assert "and 2 are, of which one gets all requests" in capsys.readouterr().out

    last = fake(**{"models list": [{"name": f"{PARENT}/models/6"}], "endpoints list": [older]})
    assert deploy.main(MODEL, run=last) == 0
    assert not last.named("ai", "endpoints", "deploy-model")
    assert "deployed before" in capsys.readouterr().out


def test_another_image_or_model_is_another_upload(gcs, tmp_path):
    digests = set()
    recipe = tmp_path / "mine.yaml"
    for folder, image in (("a", "null"), ("a", "eu-docker.pkg.dev/p/r/serving:2"), ("b", "null")):
        put_model(gcs, f"{folder}/model")
        if folder == "b":
            gcs.put("bucket", "b/model/saved_model.pb", b"another graph")
        recipe.write_text(f"deploy: {{image: {image}}}\n")
        run = fake()
        deploy.main(["--model_dir", f"gs://bucket/{folder}/model", "--recipe", str(recipe)], run=run)
        digests.add(flag(run.named("ai", "models", "upload")[0], "labels"))
        # An image of the user's own is not looked for where ours comes from.
        assert bool(run.named("artifacts")) == (image == "null")
    assert len(digests) == 3


def test_a_dry_run_sends_nothing_and_needs_no_gcloud(gcs, capsys):
    put_model(gcs)
    names = gcs.names("bucket")

    def run(command):
        pytest.fail(f"{command} was run")

    assert deploy.main([*MODEL, "--dry_run", "--endpoint_name", "my endpoint"], run=run) == 0
    assert gcs.names("bucket") == names
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:4] for line in lines if line.startswith("gcloud")] == [
        ["models", "upload"],
        ["endpoints", "create"],
        ["endpoints", "deploy-model"],
        ["endpoints", "predict"],
    ]
    assert "'--display-name=my endpoint'" in lines[2]
    assert lines[-1].endswith("the endpoint costs money until it is undeployed, even without requests.")


def test_no_model(gcs):
    assert f"MODEL_DIR: {JOB_DIR}/training holds no model that `hugs train` wrote" in refusal()
    put_model(gcs, takes_images=False)
    assert "takes embeddings and no photos" in refusal()


def test_a_model_without_its_graph_is_none(gcs):
    gcs.put("bucket", "hugs_1/training/model/assets.extra/model.json", b"{}")
    assert "holds no model that `hugs train` wrote" in refusal()


def test_the_repository_of_the_image_is_missing(gcs):
    put_model(gcs)
    run = fake(**{"artifacts repositories describe": "ERROR: (gcloud.artifacts) NOT_FOUND: no\n"})
    said = refusal(run=run)
    assert "project loopback has no repository docker-hub in us-central1" in said
    assert "--mode=remote-repository --remote-docker-repo=DOCKER-HUB" in said
    assert not run.named("ai")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_dir", "gs://bucket"], "MODEL_DIR: must be gs://BUCKET/FOLDER"),
        (["--endpoint_name", ""], "ENDPOINT_NAME: must be 1 to 128 characters"),
        (["--endpoint_name", 'a"b'], "ENDPOINT_NAME: must be 1 to 128 characters"),
        (["--image", "no/such.jpg"], "--image: no/such.jpg: cannot be read (No such file or directory)"),
        (["--region", "mars"], "cloud.region must be"),
        (["--model_dir", "gs://no-such-bucket/x"], "No such bucket: gs://no-such-bucket"),
    ],
)
def test_wrong_input(gcs, flags, message):
    put_model(gcs)
    assert message in refusal(*flags)


def test_images_that_cannot_serve_our_models(gcs, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("deploy:\n  image: us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest\n")
    said = refusal("--recipe", str(recipe))
    assert "mine.yaml, line 2: deploy.image must be TensorFlow Serving 2.20 or later" in said


@pytest.mark.parametrize(
    "field",
    [
        {"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": "3.us-central1-42.prediction.vertexai.goog"},
        {"network": "projects/42/global/networks/mine"},
        {"privateServiceConnectConfig": {"enablePrivateServiceConnect": True}},
    ],
)
def test_an_endpoint_that_cannot_be_asked_gets_no_model(gcs, field):
    put_model(gcs)
    run = fake(**{"endpoints list": [ENDPOINT | field]})
    said = refusal("--endpoint_name", "hugs", run=run)
    assert "ENDPOINT_NAME: endpoint 3 (hugs)" in said
    assert "Nothing was deployed" in said
    new = fake(**{"endpoints create": ENDPOINT | field})
    assert "ENDPOINT_NAME: endpoint 3 (hugs)" in refusal(run=new)
    assert not [one for one in run.commands + new.commands if "deploy-model" in one]


def test_the_endpoint_of_a_colleague_is_used_only_if_it_is_named(gcs):
    put_model(gcs)
    serving = [{"id": "5", "model": f"{PARENT}/models/6@1"}]
    other = ENDPOINT | {"labels": {"hugs_bucket": "another"}, "deployedModels": serving}
    run = fake(**{"endpoints list": [other]})
    said = refusal(run=run)
    assert "endpoint 3 is named hugs, as the recipe, and serves a model of another bucket" in said
    assert not run.named("ai", "models", "upload")
    assert deploy.main([*MODEL, "--endpoint_name", "hugs"], run=fake(**{"endpoints list": [other]})) == 0
    empty = fake(**{"endpoints list": [other | {"deployedModels": []}]})
    assert deploy.main(MODEL, run=empty) == 0


def test_the_container_has_the_account_that_the_recipe_asks_for(gcs, tmp_path):
    """The account of the workers would have to be allowed to read Vertex AI's copy of the model."""
    put_model(gcs)
    recipe = tmp_path / "hugs.yaml"
    account = "w@my-project.iam.gserviceaccount.com"
    for section, flags in (("cloud", []), ("deploy", [f"--service-account={account}"])):
        recipe.write_text(f"{section}: {{service_account: {account}}}\n")
        run = fake()
        assert deploy.main([*MODEL, "--recipe", str(recipe)], run=run) == 0
        (deployed,) = run.named("ai", "endpoints", "deploy-model")
        assert [word for word in deployed if "service-account" in word] == flags


def test_two_endpoints_of_one_name(gcs):
    put_model(gcs)
    twins = [ENDPOINT, ENDPOINT | {"name": f"{PARENT}/endpoints/4"}]
    assert "2 endpoints are named 'hugs': 3, 4" in refusal(run=fake(**{"endpoints list": twins}))


def test_a_file_that_is_no_image(gcs, tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    assert "--image: " in refusal("--image", str(tmp_path / "x.jpg"))


def test_the_request_is_small_and_has_the_pixels_of_the_pipeline():
    encoded = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    Image.fromarray(noise).save(encoded, "JPEG", quality=98)
    assert len(encoded.getvalue()) > 1_500_000
    request = prediction_request(encoded.getvalue(), key="k", size=299)
    assert len(json.dumps(request)) < 1_500_000
    (instance,) = request["instances"]
    sent = decode_image(base64.b64decode(instance["image_bytes"]["b64"]))
    np.testing.assert_array_equal(sent, decode_image(encoded.getvalue()))
    (drawn,) = prediction_request(None, key="k", size=299)["instances"]
    np.testing.assert_array_equal(decode_image(base64.b64decode(drawn["image_bytes"]["b64"])), probe_images(1)[0])


def test_answers():
    label, confident, best = top_predictions(ANSWER, LABELS)
    assert (label, confident, best) == ("not-hugs", True, [("not-hugs", 0.75), ("hugs", 0.25)])
    for wrong in (
        None,
        {},
        {"predictions": []},
        {"predictions": [{"label": "x", "scores": [1]}]},
        {"predictions": [3]},
    ):
        with pytest.raises(InputError, match="the endpoint did not answer as our models do"):
            top_predictions(wrong, LABELS)


def test_a_photo_that_the_model_could_not_read_is_said():
    bad = {"label": "", "confident": False, "scores": [0.0] * len(LABELS), "error": "corrupt: the image is damaged"}
    with pytest.raises(InputError, match=r"could not read the photo \(corrupt: the image is damaged\)"):
        top_predictions({"predictions": [bad]}, LABELS)
    good = {**ANSWER["predictions"][0], "error": ""}
    assert top_predictions({"predictions": [good]}, LABELS) == top_predictions(ANSWER, LABELS)


def test_a_server_of_our_own_is_deployed(gcs, tmp_path):
    put_model(gcs)
    recipe = tmp_path / "mine.yaml"
    image = "us-central1-docker.pkg.dev/loopback/hugs/hugs-server:1"
    recipe.write_text(f"name: hugs\ndeploy: {{image: '{image}', server_in_image: true}}\n")
    older = ENDPOINT | {
        "deployedModels": [{"id": "5", "model": f"{PARENT}/models/6"}],
        "trafficSplit": {"5": 100},
    }
    run = fake(**{"endpoints list": [older]})
    flags = ("--recipe", str(recipe), "--endpoint_name", "hugs", "--version_name", "second", "--traffic", "20")
    assert deploy.main([*MODEL, *flags], run=run) == 0
    (upload,) = run.named("ai", "models", "upload")
    assert flag(upload, "container-image-uri") == image
    assert flag(upload, "container-ports") == "8080"
    assert flag(upload, "container-predict-route") == "/predict"
    assert flag(upload, "container-health-route") == "/readyz"
    assert not any(word.startswith("--container-args") for word in upload)
    (deployed,) = run.named("ai", "endpoints", "deploy-model")
    assert flag(deployed, "display-name") == "second"
    assert flag(deployed, "traffic-split") == "0=20,5=80"
    assert not run.named("artifacts")
    assert "traffic must be a whole number from 0 to 100" in refusal("--traffic", "101")


def test_the_image_of_our_server_must_be_named():
    with pytest.raises(InputError, match="server_in_image must be false where deploy.image is not given"):
        DeployOptions(server_in_image=True)


def test_our_server_finds_the_model_that_was_staged(gcs):
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from serving.versions import VersionFinder

    put_model(gcs)
    run = fake()
    deploy.main(MODEL, run=run)
    artifact = flag(run.named("ai", "models", "upload")[0], "artifact-uri")
    assert [(number, folder) for number, (folder, _) in VersionFinder(artifact).find().items()] == [
        (1, f"{artifact}/1")
    ]
    assert list(VersionFinder(f"{JOB_DIR}/training/model").find()) == [1]
