"""VSI-Bench: what a video tells about space, in ten kinds of questions."""

import functools

from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.scoring.choices import chance_of_options
from stereopsis.benchmarks.vsibench import metric, prompt, reader

BENCHMARK = Benchmark(
    name="vsibench",
    title="VSI-Bench",
    kind="choice",
    read=reader.read,
    files=reader.FILES,
    prompt=prompt.prompt,
    target=prompt.target,
    normalise=metric.first_word,
    score=metric.score,
    chance=functools.partial(chance_of_options, metric="score"),
    metrics=metric.METRICS,
    headline="score",
    protocols=metric.PROTOCOLS,
    splits={"full": 5130},
    evaluated="full",
    citation="Yang et al., Thinking in Space: How Multimodal Large Language Models See, Remember and Recall Spaces, "
    "CVPR 2025",
    type_groups={"object_rel_direction": reader.DIRECTION_TYPES},
    over="types",
    max_new_tokens=16,
    data="videos of ScanNet, ScanNet++ and ARKitScenes",
    scenes=r"scene\d{4}_\d{2}|\d{8}|[0-9a-f]{10}",
    order=60,
)
