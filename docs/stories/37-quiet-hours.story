# At night and at the weekend nobody is asked: an idle model goes down after the time of the first reminder.
given speed 120
given idle.quiet_days [mon, tue, wed, thu, fri, sat, sun]
given idle.remind_after 4s
given idle.down_after 10m

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "in quiet hours" within 60s
expect "is down and the GPU is free" within 60s
expect not "Without an answer" within 1s
