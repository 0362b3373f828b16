"""MMSI-Bench: what several pictures tell together about space, four options each."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.mmsi import metric, reader
from stereopsis.benchmarks.scoring.choices import ACCURACY, chance_of_options
from stereopsis.benchmarks.wording import first_answer

BENCHMARK = Benchmark(
    name="mmsi",
    title="MMSI-Bench",
    kind="choice",
    read=reader.read,
    files=reader.FILES,
    prompt=metric.prompt,
    target=first_answer,
    score=metric.score,
    chance=chance_of_options,
    metrics=(ACCURACY,),
    headline="acc",
    protocols=metric.PROTOCOLS,
    splits={"test": 1000},
    evaluated="test",
    citation="Yang et al., MMSI-Bench: A Benchmark for Multi-Image Spatial Intelligence, 2025",
    max_new_tokens=2048,
    data="pictures of indoor, outdoor and driving scenes",
    scenes=r"\d+",
    order=70,
)
