"""Transport plans on images: where mass may go, what it costs, how a plan is made feasible and how that is proved."""
