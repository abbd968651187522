"""What Prometheus reads."""

import re
from typing import Any

from edge_agent.api.metrics import Family, Sample, inference_families, render
from edge_agent.inference.stats import BUCKETS_S, ModelStats

LINE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$')


def test_the_text_of_a_family() -> None:
    family = Family("edge_gaps_total", "counter", "Gaps,\nby \\ lane.", (Sample(2, {"lane": 'a"b\\c\nd'}),))
    assert render([family]).decode() == (
        "# HELP edge_gaps_total Gaps,\\nby \\\\ lane.\n"
        "# TYPE edge_gaps_total counter\n"
        'edge_gaps_total{lane="a\\"b\\\\c\\nd"} 2\n'
    )


def test_a_histogram_is_cumulative() -> None:
    buckets = (1, 2, *[0] * (len(BUCKETS_S) - 2), 3)
    text = render(inference_families({"pump": ModelStats(6, 1, 0.5, buckets)})).decode()
    assert 'edge_inference_seconds_bucket{model="pump",le="5e-05"} 1\n' in text
    assert 'edge_inference_seconds_bucket{model="pump",le="0.0001"} 3\n' in text
    assert 'edge_inference_seconds_bucket{model="pump",le="5"} 3\n' in text
    assert 'edge_inference_seconds_bucket{model="pump",le="+Inf"} 6\n' in text
    assert 'edge_inference_seconds_count{model="pump"} 6\n' in text
    assert 'edge_inference_failures_total{model="pump"} 1\n' in text


def test_the_endpoint_counts_requests_and_adds_the_sites_own(site: Any) -> None:
    tensor = {"name": "window", "shape": [1, 8], "datatype": "FP32", "data": [0] * 8}
    assert site.post("/v2/models/pump/infer", {"inputs": [tensor]}).status == 200
    assert site.post("/v2/models/pump/infer", {"inputs": [tensor | {"shape": [2, 4]}]}).status == 400
    answer = site.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert 'edge_inference_requests_total{model="pump"} 2\n' in text
    assert 'edge_inference_failures_total{model="pump"} 1\n' in text
    assert "edge_outbox_rows 3\n" in text
    assert all(LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
