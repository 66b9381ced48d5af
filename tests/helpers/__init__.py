"""What the tests share: awkward graphs, tolerances, backends and checks."""
