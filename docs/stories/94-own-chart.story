# The repository's own chart, described by a field map in .stoker.yaml. Its Applications sync manually and ignore the replicas.
given platform own-chart
given speed 600
@dev /gpu up coder
expect "Application: coder"
@lead clicks "Approve"
expect "coder is up and answers" within 60s
expect replicas coder 1
@dev /gpu down coder
expect "coder is down" within 30s
expect replicas coder 0
