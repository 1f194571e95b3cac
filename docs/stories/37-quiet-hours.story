# At night and at the weekend Stoker does not ask: an idle model goes down when the first reminder would be due.
given speed 300
given idle.quiet_days [mon, tue, wed, thu, fri, sat, sun]
given idle.remind_after 4s
given idle.down_after 10m

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "in quiet hours" within 60s
expect "is down and the GPU is free" within 60s
expect not "It goes down at" within 1s
