# One Application without automated sync deploys every model: Stoker starts only one, through the API. Its Service points to a
# proxy beside the engine.
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
