"""The report: a picture, and a page that holds it with tables and samples.

The page asks nobody for anything: no script, no style or picture from elsewhere, and a policy that
would forbid them. What users wrote (names, labels, rows) is escaped by the template.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from training.report import samples
from training.report.run import Run

SETTINGS = (
    "tuning", "n_epochs", "total_steps", "batch_size", "learning_rate", "optimizer",
    "lr_scheduler", "warmup_steps", "weight_decay", "max_length", "precision", "seed", "train_rows",
    "valid_rows",
)  # fmt: skip
MOST_LABELS = 100

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ run.spec.task }}: {{ run.job_id }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
         border-bottom: 1px solid #8884; overflow-wrap: anywhere; white-space: pre-wrap; }
td { min-width: 4rem; max-width: 24rem; }
img { max-width: 100%; height: auto; image-rendering: auto; }
.figure { background: white; border-radius: 6px; }
.wrong { color: #c0392b; } .tag { font-size: .75rem; color: #3a7; } .tag.wrong { color: #c0392b; }
mark { border-radius: 3px; }
</style>
</head>
<body>
<h1>{{ run.spec.task }}, fine-tuned from {{ run.spec.model }}</h1>
<p>Job {{ run.job_id }}{% if run.best %}: best {{ run.spec.metric }}
{{ '%.5g' % run.best[1] }} at step {{ run.best[0] }}{% endif %}.</p>
<img class="figure" alt="Loss, metric, learning rate and speed by step" src="{{ picture }}">
<h2>Last values</h2>
<div class="wide"><table>
<tr><th>name</th><th>training</th><th>validation</th></tr>
{% for name, train, valid in values %}
<tr><td>{{ name }}</td><td>{{ train }}</td><td>{{ valid }}</td></tr>
{% endfor %}
</table></div>
{% if labels %}
<h2>Labels, by the last evaluation</h2>
<div class="wide"><table>
<tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>{{ counted }}</th></tr>
{% for label, score in labels %}
<tr><td>{{ label }}</td><td>{{ '%.4f' % score.precision }}</td><td>{{ '%.4f' % score.recall }}</td>
<td>{{ '%.4f' % score.f1 }}</td><td>{{ '{:,}'.format(score.rows) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if samples %}
<h2>Samples of the {{ 'validation' if run.split == 'valid' else 'training' }} file,
by the weights of the last step</h2>
<div class="wide"><table>
<tr>{% for heading in samples[0] %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for cells in samples %}
<tr>{% for cell in cells.values() %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
<h2>Settings</h2>
<div class="wide"><table>
{% for name in settings %}
<tr><td>{{ name }}</td><td>{{ run.spec[name] }}</td></tr>
{% endfor %}
</table></div>
</body>
</html>
"""


def write(run: Run, picture: Path, path: Path) -> None:
    """Write the page, with the picture in it."""
    data = base64.b64encode(picture.read_bytes()).decode()
    scores = samples.scores(samples.by_label(run.counts))
    page = Environment(autoescape=True).from_string(TEMPLATE)
    text = page.render(
        run=run,
        picture=Markup("data:image/png;base64,{}").format(data),
        values=_last_values(run),
        labels=list(zip(run.spec.labels, scores, strict=True))[:MOST_LABELS] if scores else [],
        counted={"image-segmentation": "pixels", "token-classification": "words"}.get(
            run.spec.task, "rows"
        ),
        samples=samples.cells(run),
        settings=SETTINGS,
    )
    path.write_text(text, encoding="utf-8")


def _last_values(run: Run) -> list[tuple[str, str, str]]:
    names = dict.fromkeys(name for _, name in run.curves)
    return [(name, _last(run, "train", name), _last(run, "valid", name)) for name in names]


def _last(run: Run, split: str, name: str) -> str:
    curve = run.curves.get((split, name))
    return f"{curve.values[-1]:.5g}" if curve is not None else ""
