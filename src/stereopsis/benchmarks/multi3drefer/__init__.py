"""Multi3DRefer: find all objects that are described, be it none, one or several."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.multi3drefer import metric, prompt, reader
from stereopsis.benchmarks.published import figures_beside

BENCHMARK = Benchmark(
    name="multi3drefer",
    title="Multi3DRefer",
    kind="pointing",
    read=reader.read,
    processed=reader.processed,
    files=reader.FILES,
    prompt=prompt.prompt,
    target=prompt.target,
    score=metric.score,
    choose=metric.choose,
    chance=metric.chance,
    zero_target=True,
    metrics=metric.METRICS,
    headline="f1@0.25",
    protocols=metric.PROTOCOLS,
    splits={"train": 43_838, "val": 11_120},
    evaluated="val",
    citation="Zhang, Gong and Chang, Multi3DRefer: Grounding Text Description to Multiple 3D Objects, ICCV 2023",
    published=figures_beside(__file__, "multi3drefer"),
    examples=("mt",),
    order=50,
)
