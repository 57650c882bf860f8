"""What models are built of: stacked layers, tables, inputs, nodes, experts, gates and towers."""
