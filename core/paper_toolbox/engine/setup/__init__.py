"""A run before it starts: its methods, model, objective, optimizer, device; the session that holds them.

methods, models, edited, objective, optimize, schedule, devices, session; unused (settings that nothing reads),
search_space (what tuning draws from); libraries, packages (models and options of other libraries).
"""
