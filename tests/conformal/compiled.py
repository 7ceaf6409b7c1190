"""Methods of calibrators as one compiled program each; op by op the many small ones take longer."""

import functools

import jax


@functools.partial(jax.jit, static_argnums=0)
def decide(calibrator, *lanes, **options):
    return calibrator.decide(*lanes, **options)


@functools.partial(jax.jit, static_argnums=0)
def observe(calibrator, *lanes, **options):
    return calibrator.observe(*lanes, **options)


@functools.partial(jax.jit, static_argnums=0, static_argnames="tail")
def p_values(calibrator, *lanes, **options):
    return calibrator.p_values(*lanes, **options)
