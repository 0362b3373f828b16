"""ScanQA: questions about a scanned room."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.published import figures_beside
from stereopsis.benchmarks.scanqa import metric, prompt, reader, submission

BENCHMARK = Benchmark(
    name="scanqa",
    title="ScanQA",
    kind="text",
    read=reader.read,
    processed=reader.processed,
    files=reader.FILES,
    prompt=prompt.prompt,
    target=prompt.target,
    submission=submission.submission,
    normalise=metric.normalise,
    score=metric.score,
    metrics=metric.METRICS,
    headline="em",
    protocols=metric.PROTOCOLS,
    splits={"train": 26_515, "val": 4675},
    evaluated="val",
    citation="Azuma et al., ScanQA: 3D Question Answering for Spatial Scene Understanding, CVPR 2022",
    published=figures_beside(__file__, "scanqa"),
    order=20,
)
