"""Admission: refuses what cannot be enforced, and warns of what is legal and surprising.

It is a courtesy to users, not a line of defence: whatever is stored, the compiler judges again.
"""
