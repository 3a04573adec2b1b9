"""Ways to run model servers; `base.Deployer` is what all of them do."""
