"""The cffi extension has no pyproject spelling in setuptools."""

from setuptools import setup

setup(cffi_modules=["loader/yett_loader/_libbpf/build.py:ffibuilder"])
