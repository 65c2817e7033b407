"""The sidecar engine: one Envoy on the node for the requests that the kernel cannot judge.

`places` gives each ruleset a listener, `routes` turns rules into Envoy's, `listeners` and
`bootstrap` say how Envoy listens and runs, `xds` hands it all over and hears what Envoy accepts,
`process` keeps Envoy running, `gate` is the way in; `engine` ties them together.
"""
