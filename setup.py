"""What pyproject.toml cannot say: the C of `adapters/ops`, which is left out where it does not compile."""

from setuptools import Extension, setup

OPS = "src/tombola/adapters/ops"

setup(
    ext_modules=[
        Extension(
            "tombola.adapters.ops._cpu",
            [f"{OPS}/masked_cpu.c", f"{OPS}/partitioned_cpu.c", f"{OPS}/sparse_cpu.c"],
            depends=[f"{OPS}/cpu.h", f"{OPS}/columns.h"],
            # Not linked with an OpenMP of its own: it finds torch's, and with it torch's threads, when it is loaded.
            extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
            optional=True,
        )
    ]
)
