"""MindCube: a space imagined from a few views that hardly overlap."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.mindcube import metric, reader
from stereopsis.benchmarks.scoring.choices import ACCURACY, chance_of_options
from stereopsis.benchmarks.wording import first_answer

BENCHMARK = Benchmark(
    name="mindcube",
    title="MindCube",
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
    splits={"tiny": 1050, "full": 21_154},
    evaluated="tiny",
    citation="Yin et al., Spatial Mental Modeling from Limited Views, 2025",
    max_new_tokens=4096,
    data="views of ARKitScenes, DL3DV and WildRGB-D",
    scenes=r"(among|around|aroundnew|rotation)_.*",
    order=90,
)
