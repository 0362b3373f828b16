"""SQA3D: questions of somebody who stands somewhere in a room."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.published import figures_beside
from stereopsis.benchmarks.sqa3d import metric, prompt, reader

BENCHMARK = Benchmark(
    name="sqa3d",
    title="SQA3D",
    kind="text",
    read=reader.read,
    processed=reader.processed,
    files=reader.FILES,
    prompt=prompt.prompt,
    target=prompt.target,
    normalise=metric.normalise,
    score=metric.score,
    metrics=metric.METRICS,
    headline="em",
    protocols=metric.PROTOCOLS,
    splits={"train": 79_445, "test": 3519},
    evaluated="test",
    citation="Ma et al., SQA3D: Situated Question Answering in 3D Scenes, ICLR 2023",
    published=figures_beside(__file__, "sqa3d"),
    order=10,
)
