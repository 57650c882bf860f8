"""The models that MGOE is compared with."""
