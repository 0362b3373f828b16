"""ScanRefer: find the one object that is described."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.published import figures_beside
from stereopsis.benchmarks.scanrefer import metric, prompt, reader, submission

BENCHMARK = Benchmark(
    name="scanrefer",
    title="ScanRefer",
    kind="pointing",
    read=reader.read,
    processed=reader.processed,
    files=reader.FILES,
    submitted=submission.submitted,
    prompt=prompt.prompt,
    target=prompt.target,
    score=metric.score,
    choose=metric.choose,
    chance=metric.chance,
    metrics=metric.METRICS,
    headline="acc@0.25",
    protocols=metric.PROTOCOLS,
    splits={"train": 36_665, "val": 9508},
    evaluated="val",
    citation="Chen, Chang and Niessner, ScanRefer: 3D Object Localization in RGB-D Scans using Natural Language, "
    "ECCV 2020",
    published=figures_beside(__file__, "scanrefer"),
    examples=("multiple", "unique"),
    order=40,
)
