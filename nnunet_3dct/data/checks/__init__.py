"""The check of a raw dataset: one subject a module, each a function from what was measured to findings.

:func:`~nnunet_3dct.data.checks.dataset.check_dataset` reads every case once, in several processes
(:mod:`~nnunet_3dct.data.checks.case`), and then goes through the subjects.
"""
