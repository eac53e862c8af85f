"""The model card of a run: what it was trained on, how good it is and how sure that is, whose terms it stands under, what it can't do.

*Source:* the headings are those of Mitchell et al. (2019), "Model cards for model reporting". A card says what the run says; what
nobody has measured it names as that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..fuse.export import Exported
from ..fuse.models.table import entry
from ..fuse.predictions import Predictions
from ..fuse.run import Run
from ..fuse.statistics import bootstrap_macro_f1, bootstrap_mean, interval
from .licences import licence_of_data, licence_of_weights, weights_in


def model_card(run: Run, exported: Sequence[Exported]) -> str:
    """Markdown. exported: the files that the card lies beside."""
    features, config = run.document["features"], run.config
    parts = [
        f"# {run.name}",
        f"{entry(config.model).summary} ({entry(config.model).source}). It tells {len(run.classes)} classes of "
        f"{text(features['task'])} apart; trained with bmla on {text(features['dataset'])}.",
        "## Use",
        *usage(run, exported),
        "## Data",
        *data_lines(run),
        "## Results",
        scores_table(run),
        "Intervals: 95 % bootstrap over recordings, for these weights alone: what another seed or another data set would give they do "
        "not say. The epoch was chosen on dev; test was looked at once.",
        "## Licences",
        *licence_lines(run),
        "## Limits",
        *limits(run),
        "## Provenance",
        *provenance(run, exported),
    ]
    return "\n\n".join(parts) + "\n"


def usage(run: Run, exported: Sequence[Exported]) -> list[str]:
    """How the files are called, and with what."""
    rows = ["| input | type | what |", "| --- | --- | --- |"]
    for modality, stream in run.document["features"]["streams"].items():
        shape = ", ".join(["batch", "steps", *map(str, stream.get("shape") or [stream["length"]])])
        kind = "uint8" if stream.get("pixels") else "float32"
        rate = f"{stream['rate_hz']:g} steps a second"
        rows.append(f"| `{modality}` | {kind} ({shape}) | `{text(stream['name'])}`, {rate}, not standardised |")
        rows.append(
            f"| `{modality}_mask` | bool (batch, steps) | True: the step counts; all False: the clip lacks it |"
        )
    outputs = ", ".join(f"`{name}`" for name in (exported[0].outputs if exported else ()))
    return [
        *(code(file) for file in exported),
        "\n".join(rows),
        f"Outputs, in order: {outputs}. The classes are in `classes.json`, in order.",
        f"From a file to an answer: `bmla predict {run.name} clip.mp4`.",
    ]


def code(file: Exported) -> str:
    """The call in Python."""
    if file.path.suffix == ".onnx":
        given = ", ".join(f'"{name}": {name}' for name in file.inputs)
        lines = ["import onnxruntime", f'session = onnxruntime.InferenceSession("{file.path.name}")']
        lines.append(f"log_probabilities = session.run(None, {{{given}}})[0]")
    else:
        lines = ["import torch", f'model = torch.export.load("{file.path.name}").module()']
        lines.append(f"log_probabilities = model({', '.join(file.inputs)})[0]")
    return "\n".join(["```python", *lines, "```"])


def data_lines(run: Run) -> list[str]:
    features = run.document["features"]
    lines = [
        f"Data set: {text(features['dataset'])}. Tested on {run.scores['test']['clips']} clips, dev {run.scores['dev'].get('clips', '?')}."
    ]
    for modality, stream in features["streams"].items():
        spec, seconds = run.specification(modality), run.seconds(modality)
        length = f"; clips of {seconds[0]:.2f} to {seconds[1]:.2f} s" if seconds else ""
        law = f"; {text(spec.frame_law)}" if spec else ""
        lines.append(f"- {modality}: `{text(stream['name'])}`{length}{law}; digest `{text(stream['digest'])[:16]}`")
    return ["\n".join(lines), *(f"Note: {text(note)}" for note in features.get("notes", []))]


def scores_table(run: Run) -> str:
    """Accuracy and macro F1 with intervals, clean and under every condition that was tested."""
    rows = ["| tested | clips | accuracy % | macro F1 % |", "| --- | --- | --- | --- |"]
    for condition in run.conditions:
        predictions = run.predictions_under(condition)
        rows.append(f"| {text(condition)} | {len(predictions)} | {measured(predictions)} |")
    return "\n".join(rows)


def measured(predictions: Predictions) -> str:
    """Two cells."""
    right = (predictions.predicted == predictions.labels).astype(float)[None]
    scores = predictions.predicted[None], predictions.labels, predictions.groups
    middle = f1(predictions.predicted, predictions.labels)
    cells = [(right.mean(), bootstrap_mean(right, predictions.groups)), (middle, bootstrap_macro_f1(*scores))]
    return " | ".join(
        "{:.1f} ({:.1f} to {:.1f})".format(*(100 * v for v in (m, *interval(rounds)))) for m, rounds in cells
    )


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def licence_lines(run: Run) -> list[str]:
    """Of the data and of every weight file that touched the features."""
    features = run.document["features"]
    lines = [f"- data set {text(features['dataset'])}: {licence_of_data(str(features['dataset']))}"]
    found: dict[str, str] = {}
    unknown = []
    for modality, name in run.streams.items():
        spec = run.specification(modality)
        if spec is None:
            unknown.append(name)
        else:
            found |= dict(weights_in(spec.to_dict()))
    lines += [
        f"- {text(source)} (`{text(digest[:16])}`): {licence_of_weights(source)}" for source, digest in found.items()
    ]
    lines += [f"- weights behind {text(name)}: the run does not say" for name in unknown]
    return [
        "\n".join(lines),
        "These are notes on what publishers say, not legal advice; the terms of the data set may cover models trained on it.",
    ]


def limits(run: Run) -> list[str]:
    """What the run itself gives away about where it will fail."""
    features, test = run.document["features"], run.scores["test"]
    lines = [
        "- It answers with one of its classes whatever it is given: another word, another language, noise.",
        "- Clips must be cut as those above; a longer recording is another kind of input.",
        "- How it does for other speakers, ages, accents, skin colours, cameras and rooms than those of the data set was not measured.",
    ]
    tested = [name for name in run.conditions if name != "clean"]
    lines.append(
        f"- Tested under: {', '.join(map(text, tested))}."
        if tested
        else "- Noise and missing modalities were not tested."
    )
    if len(features["streams"]) == 2:
        alone = {m: test.get(f"{m}_accuracy") for m in ("audio", "visual")}
        known = ", ".join(f"{m} {value:.1%}" for m, value in alone.items() if isinstance(value, float))
        lines += [f"- Accuracy of each modality's own answer: {known}."] if known else []
    return ["\n".join(lines)]


def provenance(run: Run, exported: Sequence[Exported]) -> list[str]:
    document = run.document
    changes = ", ".join(f"{name} {value}" for name, value in run.config.changes().items())
    versions = ", ".join(f"{text(name)} {text(version)}" for name, version in document.get("versions", {}).items())
    lines = [
        f"- features: digest `{document['features']['digest']}`",
        f"- settings that are not defaults: {text(changes) or 'none'}",
        f"- best epoch {run.scores['best'].get('epoch', '?')}, {document.get('parameters', '?')} parameters",
        f"- versions: {versions or 'not known'}",
        *(
            f"- `{f.path.name}`: differs from the model by at most {f.difference:.1g} in a log-probability"
            for f in exported
        ),
    ]
    return ["\n".join(lines)]


def text(value: Any) -> str:
    """On one line, without what Markdown or HTML would take for its own."""
    line = " ".join(str(value).split())
    return line.translate({ord(sign): "/" for sign in "\\|"} | {ord("`"): "'", ord("<"): "&lt;", ord(">"): "&gt;"})
