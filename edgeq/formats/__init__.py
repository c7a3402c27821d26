"""Layouts of quantized models that others write and read: each to and from `QuantizedTensor`, without a value changing.

Exporters write them, `edgeq convert` reads them.
"""
