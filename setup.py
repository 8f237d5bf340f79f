"""What pyproject.toml cannot say: the C of `adapters/ops/sparse_cpu.c`, which is left out where it does not compile."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "tombola.adapters.ops._sparse_cpu",
            ["src/tombola/adapters/ops/sparse_cpu.c"],
            # Not linked with an OpenMP of its own: it finds torch's, and with it torch's threads, when it is loaded.
            extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
            optional=True,
        )
    ]
)
