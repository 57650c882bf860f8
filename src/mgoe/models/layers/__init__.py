"""Building blocks of models: stacked layers, tables, inputs, nodes, experts, gates and towers."""
