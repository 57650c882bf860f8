"""What the documentation's figures are measured with. Run one as `python benchmarks/NAME.py`."""
