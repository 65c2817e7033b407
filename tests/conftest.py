"""Settings of the whole test suite."""

from hypothesis import HealthCheck, settings

settings.register_profile("yett", deadline=None)  # a busy machine is no bug
settings.register_profile(
    "fuzz", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("yett")

pytest_plugins = ["cluster.fixture"]
