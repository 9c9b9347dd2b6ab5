"""What plugin authors lean on."""
