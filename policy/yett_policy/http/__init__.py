"""HTTP rules: values, regexes over bytes, automata, and the tables the kernel runs."""
