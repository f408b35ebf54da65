"""Network clients shared by inputs and outputs. They carry bytes and know neither samples nor batches."""
