"""The `luthier` command. Each module holds one group of commands; `main` joins them."""
