# One manual Application deploys every model: only one is started, by the API. A proxy is beside the engine, and the target of its Service.
given platform one-application
given speed 600
@dev /gpu up chat
expect "Application: models"
@lead clicks "Approve"
expect "chat is up and answers" within 60s
expect replicas chat 1
expect replicas voice 0
@dev /gpu down chat
expect "chat is down" within 30s
expect replicas chat 0
