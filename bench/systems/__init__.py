"""What is measured: yett and its peers, each behind the same four methods."""
