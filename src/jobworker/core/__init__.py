"""The vocabulary that every layer shares: values, states and errors. No I/O."""
