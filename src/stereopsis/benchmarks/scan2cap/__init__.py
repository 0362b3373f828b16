"""Scan2Cap: describe the object in a box."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.published import figures_beside
from stereopsis.benchmarks.scan2cap import metric, prompt, reader

BENCHMARK = Benchmark(
    name="scan2cap",
    title="Scan2Cap",
    kind="caption",
    read=reader.read,
    processed=reader.processed,
    files=reader.FILES,
    prompt=prompt.prompt,
    target=prompt.target,
    normalise=metric.normalise,
    score=metric.score,
    metrics=metric.METRICS,
    headline="cider@0.5",
    protocols=metric.PROTOCOLS,
    splits={"train": 36_665, "val": 2068},
    evaluated="val",
    citation="Chen et al., Scan2Cap: Context-aware Dense Captioning in RGB-D Scans, CVPR 2021",
    published=figures_beside(__file__, "scan2cap"),
    max_new_tokens=96,
    order=30,
)
