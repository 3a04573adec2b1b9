"""Which requests are traced, as the standard variables say."""

import pytest

from control_plane.adapters import otel


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0.01, True)),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, (0.5, True)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, (1.0, False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, (0.0, True)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}, (1.0, False)),
    ],
)
def test_a_sampler_is_a_share_and_whether_the_caller_decides_first(
    environ: dict[str, str], expected: tuple[float, bool]
) -> None:
    assert otel.sampling(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [{"OTEL_TRACES_SAMPLER": "jaeger_remote"}, {"OTEL_TRACES_SAMPLER_ARG": "2"}, {"OTEL_TRACES_SAMPLER_ARG": "x"}],
)
def test_a_sampler_nobody_knows_switches_tracing_off_and_says_so(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"OTEL_|could not convert"):
        otel.sampling(environ)
    assert otel.tracer("router", {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is None


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False, False),
    ],
)
def test_only_a_named_collector_switches_it_on(environ: dict[str, str], traces: bool, metrics: bool) -> None:
    assert (otel.wanted("traces", environ), otel.wanted("metrics", environ)) == (traces, metrics)
