"""ViewSpatial-Bench: where things are, as the camera or a person in the picture sees it."""

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.scoring.choices import ACCURACY, chance_of_options
from stereopsis.benchmarks.viewspatial import metric, reader
from stereopsis.benchmarks.wording import first_answer

BENCHMARK = Benchmark(
    name="viewspatial",
    title="ViewSpatial",
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
    splits={"test": 5712},
    evaluated="test",
    citation="Li et al., ViewSpatial-Bench: Evaluating Multi-perspective Spatial Localization in VLMs, 2025",
    max_new_tokens=100,
    data="pictures of ScanNet and COCO",
    scenes=r"\d+",
    order=80,
)
