"""Settings of the whole test suite."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None)  # a busy machine is no bug
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=100 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")
